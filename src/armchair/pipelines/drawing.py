"""What all models that draw have in common: prompts, a seed and settings in, pictures out.

pictures = model.generate("an armchair in the shape of an avocado", count=9, seed=0)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from armchair.core.errors import UnknownNameError, UsageError
from armchair.text.tokenizer import Tokenizer

BATCH_SIZE = 32  # pictures drawn at once
MAX_PICTURES = 10_000  # of one request

Forming = Callable[[], list[Image.Image]]
"""Gives the pictures that are being drawn, as they look so far."""

Progress = Callable[[int, int, Forming | None], None]
"""Called with (work done, work in all, the pictures so far); None where they cannot be seen yet."""

Settings = TypeVar("Settings")


class Drawing(ABC, Generic[Settings]):
    """A model that draws.

    Attributes:
        work: What its progress is counted in.
        tokenizer: Captions to tokens; None for a model that reads none.
        sampling: The settings that `generate` uses where it is given none, a dataclass.
    """

    work: ClassVar[str]
    tokenizer: Tokenizer | None
    sampling: Settings

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of its pictures in pixels."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def setting_names(self) -> tuple[str, ...]:
        """The settings that mean something for this model."""
        return tuple(asdict(self.sampling))  # type: ignore[call-overload]

    def generate(
        self,
        prompts: str | Sequence[str] = (),
        *,
        count: int = 1,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw pictures.

        Picture k of a prompt depends on the prompt, the seed, k, and the settings; not on what else
        is drawn beside it.

        Args:
            prompts: One caption, or several; none for a model that reads none.
            count: Pictures of each; with all prompts at most 10,000.
            seed: Any integer.
            truncate: Cut captions that are longer than the text context instead of refusing them.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
            **settings: Fields of `self.sampling` that are to differ from it.

        Returns:
            `count` pictures of the first prompt, then of the next. Each picture's `info` says how
            it was drawn.

        Raises:
            UsageError: A setting is out of range, or a prompt is empty or too long.
            SamplingError: What the model computes is not finite.
        """
        return list(
            self.stream(
                prompts,
                count=count,
                seed=seed,
                truncate=truncate,
                batch_size=batch_size,
                on_progress=on_progress,
                **settings,
            )
        )

    def stream(
        self,
        prompts: str | Sequence[str] = (),
        *,
        count: int = 1,
        seed: int = 0,
        truncate: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> Iterator[Image.Image]:
        """Give the pictures of `generate` as they are drawn, a batch at a time.

        What is asked for is checked at once, before the first picture is taken.
        """
        texts = self._texts(prompts)
        check_request(len(texts), count, batch_size)
        chosen = self.settings(**settings)
        text = self._encode(texts, truncate)
        if text is not None:
            text = text.repeat_interleave(count, dim=0)
        keys = [(seed, k) for _ in texts for k in range(count)]
        pictures = self._draw(text, keys, chosen, batch_size, on_progress)
        about = (
            {**({"prompt": prompt} if prompt else {}), "seed": str(seed), "index": str(k)}
            for prompt in texts
            for k in range(count)
        )
        return self._described(pictures, about, chosen)

    def draw(
        self,
        prompts: Sequence[str],
        keys: Sequence[tuple[int, int]],
        *,
        settings: Settings | None = None,
        truncate: bool = False,
        batch_size: int = BATCH_SIZE,
        on_progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Draw one picture of each prompt.

        Args:
            prompts: Captions, at least one.
            keys: For each its (seed, index), which alone decide its random numbers.
            settings: How to draw; the model's own if not given.
            truncate: As in `generate`; so are the rest.
            batch_size: Pictures drawn at once.
            on_progress: See `Progress`.
        """
        text = self._encode(self._texts(prompts), truncate)
        return list(self._draw(text, keys, settings or self.sampling, batch_size, on_progress))

    def settings(self, **changes: Any) -> Settings:
        """The model's own sampling settings with those changed that are not None.

        Raises:
            UsageError: There is no such setting, or not for this model, or it is out of range.
        """
        for name in changes:
            if name not in self.setting_names:
                raise UnknownNameError("setting of this model", name, self.setting_names)
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self.sampling, **given)  # type: ignore[type-var]

    @abstractmethod
    def _draw(
        self,
        text: Int[Tensor, "B T"] | None,
        keys: Sequence[tuple[int, int]],
        settings: Settings,
        batch_size: int,
        on_progress: Progress | None,
    ) -> Iterator[Image.Image]:
        """Draw a picture for each key, and each row of the text if there is any."""

    def _texts(self, prompts: str | Sequence[str]) -> list[str]:
        """The prompts as a list; of a model that reads none, one that is empty."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if self.tokenizer is not None:
            return texts
        if texts:
            expected = "none, as this model reads no captions"
            raise UsageError("prompts", got=texts[0], expected=expected, hint="leave them out")
        return [""]

    def _encode(self, prompts: Sequence[str], truncate: bool) -> Int[Tensor, "B T"] | None:
        if self.tokenizer is None:
            return None
        return torch.from_numpy(self.tokenizer.encode_batch(prompts, truncate=truncate))

    def _described(
        self,
        pictures: Iterable[Image.Image],
        about: Iterable[dict[str, str]],
        settings: Settings,
        names: Sequence[str] | None = None,
    ) -> Iterator[Image.Image]:
        """The pictures, with how each was drawn in its `info`: all settings, or those named."""
        values = asdict(settings)  # type: ignore[call-overload]
        shown = {name: str(values[name]) for name in names or self.setting_names}
        for picture, of_picture in zip(pictures, about, strict=True):
            picture.info.update(of_picture)
            picture.info.update(shown)
            yield picture


def check_request(num_prompts: int, count: int, batch_size: int) -> None:
    """Refuse to draw nothing, or more than can be meant.

    Raises:
        UsageError: A number is out of range.
    """
    most = f"{MAX_PICTURES:,}"
    if num_prompts < 1:
        raise UsageError("prompts", got=[], expected="at least one", hint="say what to draw")
    if not 1 <= count <= MAX_PICTURES:
        hint = "it is the number of pictures of each prompt"
        raise UsageError("count", got=count, expected=f"1 to {most}", hint=hint)
    if num_prompts * count > MAX_PICTURES:
        raise UsageError(
            "pictures",
            got=num_prompts * count,
            expected=f"at most {most}, the prompts times count",
            hint="draw them in parts, each with a few of the prompts",
        )
    if batch_size < 1:
        hint = "it is the number of pictures drawn at once"
        raise UsageError("batch_size", got=batch_size, expected="at least 1", hint=hint)
