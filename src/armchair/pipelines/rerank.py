"""Draw many pictures of a prompt and keep those that CLIP finds the best fitting.

Source: "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, section 2.6: 512 candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from PIL import Image

from armchair.core.errors import UsageError
from armchair.pipelines.clip import CLIP
from armchair.pipelines.drawing import MAX_PICTURES


def check_candidates(candidates: int, count: int) -> None:
    """Refuse to keep more pictures than are drawn, or none, and to draw more than can be meant.

    Raises:
        UsageError: `count` is not from 1 to `candidates`, or those are more than 10,000.
    """
    if candidates > MAX_PICTURES:
        expected = f"{max(1, count):,} to {MAX_PICTURES:,}"
        hint = "so many are drawn of each prompt, and the best of them kept"
        raise UsageError("candidates", got=candidates, expected=expected, hint=hint)
    if count < 1:
        hint = "it is the number of pictures of each prompt"
        raise UsageError("count", got=count, expected="at least 1", hint=hint)
    if candidates < count:
        hint = "so many are drawn of each prompt, and the best of them kept"
        raise UsageError("candidates", got=candidates, expected=f"at least {count}", hint=hint)


def keep_best(
    pictures: Iterable[Image.Image],
    prompts: Sequence[str],
    clip: CLIP,
    *,
    candidates: int,
    count: int,
    truncate: bool = False,
) -> Iterator[Image.Image]:
    """Give the best pictures of each prompt, best first, as soon as its last one is drawn.

    What is asked for is checked at once, before the first picture is taken.

    Args:
        pictures: `candidates` pictures of the first prompt, then of the next.
        prompts: What they were drawn from.
        clip: The judge.
        candidates: Pictures of each prompt, at least `count`.
        count: How many of them to keep, at least 1.
        truncate: Cut prompts that are longer than CLIP's texts instead of refusing them.

    Returns:
        `count` pictures of the first prompt, then of the next. The `info` of each has its cosine
        under "clip_score".

    Raises:
        UsageError: There are fewer candidates than pictures to keep, or CLIP cannot read a prompt.
    """
    check_candidates(candidates, count)
    texts = clip.encode_texts(prompts, truncate=truncate)
    source = iter(pictures)

    def best() -> Iterator[Image.Image]:
        for text in texts:
            drawn = list(islice(source, candidates))
            scores = (clip.encode_pictures(drawn) @ text).tolist()
            order = sorted(range(len(drawn)), key=lambda index: -scores[index])
            for index in order[:count]:
                drawn[index].info["clip_score"] = f"{scores[index]:.4f}"
                yield drawn[index]

    return best()
