"""CLIP as something to ask: which picture fits a text, and which text a picture.

clip = armchair.load("runs/clip/bundle")
clip.scores(pictures, ["an armchair in the shape of an avocado"])    # a row for each picture
clip.classify(pictures, ["armchair", "teapot"], templates=["a picture of a {}"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.config import to_dict
from armchair.core.device import resolve_device
from armchair.core.errors import BundleError, UsageError
from armchair.core.finite import check_finite
from armchair.core.images import to_tensor
from armchair.data.pictures import to_rgb
from armchair.data.transforms import center_crop
from armchair.models.clip import CLIPConfig, CLIPModel, cosines, embed_texts, recalls
from armchair.models.clip_weights import from_openai
from armchair.pipelines.bundle import Bundle, load_weights, read_config, write_bundle
from armchair.text.clip_tokenizer import CLIPTokenizer
from armchair.text.tokenizer import Tokenizer

KIND = "clip"
_BATCH_SIZE = 64
_FILES: dict[str, str] = {"own": "tokenizer.json", "openai": "merges.txt"}


@runtime_checkable
class CaptionTokenizer(Protocol):
    """What turns captions into a CLIP's tokens."""

    @property
    def content(self) -> str:
        """The vocabulary as the text of a file."""
        ...

    def encode_batch(
        self, texts: Sequence[str], *, truncate: bool = False
    ) -> Int[np.ndarray, "B T"]:
        """Captions in tokens; a UsageError names one that is too long or cannot be encoded."""
        ...


class CLIP:
    """A CLIP with its tokenizer.

    Args:
        tokenizer: Captions to tokens: a `Tokenizer`, or OpenAI's.
        model: Both transformers.
    """

    def __init__(self, tokenizer: CaptionTokenizer, model: CLIPModel) -> None:
        self.tokenizer = tokenizer
        self.model = model

    @classmethod
    def load(cls, bundle: Bundle, device: torch.device) -> CLIP:
        """Build the model of a checked bundle.

        Raises:
            BundleError: The bundle is of another kind, or its files do not fit together.
        """
        config = read_config(bundle, KIND, _BundleConfig)
        shape = config.model
        path = bundle.path / _FILES[config.vocabulary]
        if config.vocabulary == "openai":
            tokenizer = CLIPTokenizer.load(path, context_length=shape.text_length)
        else:
            tokenizer = Tokenizer.load(path)
        _check_vocabulary(path, tokenizer, shape)
        model = load_weights(
            bundle,
            "clip",
            lambda: CLIPModel(shape),
            num_layers=shape.image_layers + shape.text_layers,
        )
        return cls(tokenizer, model.to(device).eval().requires_grad_(False))

    @classmethod
    def from_openai(cls, weights: Path, vocabulary: Path, *, device: str = "auto") -> CLIP:
        """Build a published model from its state dictionary and its vocabulary.

        Args:
            weights: A safetensors file of tensors under OpenAI's names.
            vocabulary: Its list of merges, `bpe_simple_vocab_16e6.txt.gz`.
            device: auto, cpu, cuda, or cuda:N.

        Raises:
            BundleError: A file cannot be read, is something else, or does not fit the other.
        """
        try:
            model = from_openai(load_file(weights))
        except (OSError, SafetensorError) as error:
            hint = "convert a pickled checkpoint to safetensors where you trust it"
            raise BundleError(f"{weights} is no safetensors file ({error})", hint=hint) from error
        tokenizer = CLIPTokenizer.load(vocabulary, context_length=model.config.text_length)
        _check_vocabulary(vocabulary, tokenizer, model.config)
        return cls(tokenizer, model.to(resolve_device(device)).eval().requires_grad_(False))

    def save(self, folder: Path, *, about: dict[str, Any], card: str) -> Bundle:
        """Write the model as a bundle; see `write_bundle`."""
        vocabulary = "openai" if isinstance(self.tokenizer, CLIPTokenizer) else "own"
        return write_bundle(
            folder,
            kind=KIND,
            weights=self.parts,
            texts={_FILES[vocabulary]: self.tokenizer.content},
            config=to_dict(_BundleConfig(model=self.model.config, vocabulary=vocabulary)),
            about=about,
            card=card,
        )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The network, by the name of the stage that trains it."""
        return {"clip": self.model}

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "N E"]:
        """Embed pictures of any size and mode as unit vectors.

        Of each the square in its centre is seen, resized to the model's size.

        Raises:
            UsageError: There are none.
            DataError: A picture's pixels are not whole numbers.
            SamplingError: What the model computes is not finite.
        """
        if not pictures:
            raise UsageError("pictures", got=[], expected="at least one", hint="give some pictures")
        size = self.model.config.image_size
        embeddings = []
        for start in range(0, len(pictures), _BATCH_SIZE):
            part = pictures[start : start + _BATCH_SIZE]
            pixels = np.stack([center_crop(to_rgb(picture), size) for picture in part])
            embeddings.append(self.model.encode_images(to_tensor(pixels).to(self.model.device)))
        check_finite(torch.cat(embeddings), "CLIP: the embeddings of pictures")
        return torch.cat(embeddings)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], *, truncate: bool = False) -> Float[Tensor, "N E"]:
        """Embed texts as unit vectors.

        Args:
            texts: At least one.
            truncate: Cut texts that are longer than the model's instead of refusing them.

        Raises:
            UsageError: There are none, or one is empty or too long.
            SamplingError: What the model computes is not finite.
        """
        if not texts:
            raise UsageError("texts", got=[], expected="at least one", hint="say what to look for")
        tokens = torch.from_numpy(self.tokenizer.encode_batch(texts, truncate=truncate))
        return self.encode_tokens(tokens)

    def encode_tokens(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N E"]:
        """Embed texts in tokens, as its tokenizer gives them, as unit vectors."""
        embeddings = embed_texts(self.model, tokens)
        check_finite(embeddings, "CLIP: the embeddings of texts")
        return embeddings

    def scores(
        self, pictures: Sequence[Image.Image], texts: Sequence[str], *, truncate: bool = False
    ) -> Float[Tensor, "N M"]:
        """How well each picture fits each text: cosines, on the CPU; see `encode_pictures`."""
        embeddings = self.encode_texts(texts, truncate=truncate)
        return cosines(self.encode_pictures(pictures), embeddings).cpu()

    def classify(
        self,
        pictures: Sequence[Image.Image],
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ("{}",),
        truncate: bool = False,
    ) -> Float[Tensor, "N M"]:
        """Say which label fits a picture, without having been trained on the labels.

        Args:
            pictures: At least one.
            labels: What may be seen in them, at least one.
            templates: Sentences in which "{}" stands for the label; the embeddings of a label in
                all of them are averaged (section 3.1.4).
            truncate: Cut sentences that are too long.

        Returns:
            For each picture the probability of each label, on the CPU.

        Raises:
            UsageError: There is nothing to classify or to choose among, or a template has no "{}".
        """
        for template in templates:
            if "{}" not in template:
                raise UsageError("template", got=template, expected='"{}" where the label goes')
        texts = [t.replace("{}", label) for label in labels for t in templates]
        each = self.encode_texts(texts, truncate=truncate).unflatten(
            0, (len(labels), -1)
        )  # M templates E
        similarity = cosines(self.encode_pictures(pictures), F.normalize(each.mean(dim=1), dim=-1))
        return (self.model.scale * similarity).softmax(dim=1).cpu()

    def recalls(
        self,
        pictures: Sequence[Image.Image],
        captions: Sequence[str],
        *,
        at: Sequence[int] = (1, 5),
        truncate: bool = False,
    ) -> dict[str, float]:
        """Retrieval both ways: see `armchair.models.clip.recalls`.

        Args:
            pictures: At least one.
            captions: One of each, in the same order.
            at: How many of the best count as found.
            truncate: Cut captions that are too long.
        """
        if len(pictures) != len(captions):
            expected = f"{len(pictures)}, one of each picture"
            raise UsageError("captions", got=len(captions), expected=expected)
        return recalls(self.scores(pictures, captions, truncate=truncate), at)


@dataclass(frozen=True, kw_only=True)
class _BundleConfig:
    """The configs in a bundle's manifest."""

    model: CLIPConfig
    vocabulary: Literal["own", "openai"]


def _check_vocabulary(path: Path, tokenizer: Tokenizer | CLIPTokenizer, shape: CLIPConfig) -> None:
    """Refuse a vocabulary of another size than the model's."""
    if isinstance(tokenizer, CLIPTokenizer):
        found = (tokenizer.end, tokenizer.context_length)
    else:
        found = tokenizer.config.text_shape
    if found != (shape.text_vocab_size, shape.text_length):
        raise BundleError(
            f"{path}: tokens and positions",
            got=found,
            expected=f"{(shape.text_vocab_size, shape.text_length)}, as the model has",
        )
