"""CLIP: a transformer over pictures and one over texts that meet in one space.

    model = CLIPModel(CLIPConfig(image_size=128, ...))
    images, texts = model.encode_images(images), model.encode_texts(text)     # unit vectors
    contrastive_loss(images, texts, model.scale).backward()

Training pulls a picture and its own caption together and pushes it from all other captions of the
batch, so that the cosine of two embeddings afterwards says how well picture and caption fit.

Source: "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020,
section 2 and figure 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.nn.attention import Visible
from armchair.nn.blocks import Activation, TransformerBlock
from armchair.nn.patches import Patches, patch_layers

MAX_SCALE = 100.0
_FIRST_SCALE = 1 / 0.07

Gather = Callable[[Tensor], tuple[Tensor, int]]
"""From a rank's embeddings, B D, to those of all ranks and the place of its own first one."""


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """What `CLIPModel` is built from.

    Attributes:
        image_size: Side of the pictures in pixels, a multiple of `patch_size`.
        patch_size: Side of a patch in pixels; each is one image token.
        image_dim: Width of the image transformer, a multiple of `image_heads`.
        image_layers: Its blocks.
        image_heads: Attention heads of each.
        text_vocab_size: Text tokens; every id from it on marks the end of a text.
        text_length: Text positions.
        text_dim: Width of the text transformer, a multiple of `text_heads`.
        text_layers: Its blocks.
        text_heads: Attention heads of each.
        embedding_dim: Dimensions of the space in which both meet.
        activation: "gelu", or OpenAI's "quick_gelu".
        patches: What makes patches into tokens; see `patch_layers`. "linear" is the paper's.
    """

    image_size: int
    patch_size: int
    image_dim: int
    image_layers: int
    image_heads: int
    text_vocab_size: int
    text_length: int
    text_dim: int
    text_layers: int
    text_heads: int
    embedding_dim: int
    activation: Activation = "gelu"
    patches: Patches = "linear"

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ConfigError(field, got=value, expected="at least 1")
        for field, divisor in (
            ("image_size", "patch_size"),
            ("image_dim", "image_heads"),
            ("text_dim", "text_heads"),
        ):
            if getattr(self, field) % getattr(self, divisor):
                expected = f"a multiple of {divisor} = {getattr(self, divisor)}"
                raise ConfigError(field, got=getattr(self, field), expected=expected)
        if self.patches == "convolutions":
            self._check_convolutions()

    def _check_convolutions(self) -> None:
        size = self.patch_size
        if size < 2 or size & (size - 1):
            raise ConfigError("patch_size", got=size, expected="a power of 2, for convolutions")
        if self.image_dim % (size // 2):
            expected = f"a multiple of {size // 2}, half the patch_size, for convolutions"
            raise ConfigError("image_dim", got=self.image_dim, expected=expected)


class ImageTransformer(nn.Module):
    """A vision transformer; a picture's embedding is read at its class token.

    Args:
        image_size: Side of the pictures in pixels.
        patch_size: Side of a patch in pixels.
        dim: Width D.
        num_layers: Blocks.
        num_heads: Attention heads of each.
        embedding_dim: Dimensions E of the embedding.
        activation: See `CLIPConfig`.
        patches: See `CLIPConfig`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        embedding_dim: int,
        activation: Activation,
        patches: Patches,
    ) -> None:
        super().__init__()
        num_patches = (image_size // patch_size) ** 2
        self.patches = patch_layers(patches, patch_size, dim)
        self.class_token = nn.Parameter(torch.empty(1, dim))
        self.positions = nn.Parameter(torch.empty(1 + num_patches, dim))
        self.first_norm = nn.LayerNorm(dim)
        self.blocks = _blocks(dim, num_layers, num_heads, "all", activation)
        self.norm = nn.LayerNorm(dim)
        self.projection = nn.Linear(dim, embedding_dim, bias=False)
        for parameter in (self.class_token, self.positions, self.projection.weight):
            nn.init.normal_(parameter, std=dim**-0.5)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Embed pictures in [-1, 1]."""
        patches = self.patches(images).flatten(2).mT + self.positions[1:]  # B T D
        first = (self.class_token + self.positions[:1]).expand(len(images), 1, -1)
        x = self.first_norm(torch.cat([first, patches], dim=1))
        for block in self.blocks:
            x = block(x)
        return _read_out(x[:, 0], self.norm, self.projection)


class TextTransformer(nn.Module):
    """A causal transformer; a text's embedding is read where the text ends.

    Args:
        vocab_size: Text tokens V.
        text_length: Text positions.
        dim: Width D.
        num_layers: Blocks.
        num_heads: Attention heads of each.
        embedding_dim: Dimensions E of the embedding.
        activation: See `CLIPConfig`.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        text_length: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        embedding_dim: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        # Tables as parameters, not as `nn.Embedding`: the paper's weight decay is for them too.
        self.tokens = nn.Parameter(torch.empty(vocab_size + 1, dim))  # the last: the end of a text
        self.positions = nn.Parameter(torch.empty(text_length, dim))
        self.blocks = _blocks(dim, num_layers, num_heads, "causal", activation)
        self.norm = nn.LayerNorm(dim)
        self.projection = nn.Linear(dim, embedding_dim, bias=False)
        nn.init.normal_(self.tokens, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        nn.init.normal_(self.projection.weight, std=dim**-0.5)

    def forward(self, text: Int64[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Embed texts; what follows their ends is left out, as nothing looks ahead."""
        end = self.ends(text)
        if not text.is_meta:
            text = text[:, : int(end.max()) + 1]
        x = F.embedding(text.clamp(max=self.vocab_size), self.tokens)
        x = x + self.positions[: text.shape[1]]
        for block in self.blocks:
            x = block(x)
        rows = torch.arange(len(text), device=text.device)
        return _read_out(x[rows, end], self.norm, self.projection)

    def ends(self, text: Int64[Tensor, "B T"]) -> Int64[Tensor, " B"]:
        """The position at which each text ends, its last one if it has no end."""
        before_end = (text < self.vocab_size).long().cumprod(dim=1).sum(dim=1)
        return before_end.clamp(max=text.shape[1] - 1)


class CLIPModel(nn.Module):
    """Both transformers, and how much their cosines count for.

    Args:
        config: Their sizes.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.images = ImageTransformer(
            image_size=config.image_size,
            patch_size=config.patch_size,
            dim=config.image_dim,
            num_layers=config.image_layers,
            num_heads=config.image_heads,
            embedding_dim=config.embedding_dim,
            activation=config.activation,
            patches=config.patches,
        )
        self.texts = TextTransformer(
            vocab_size=config.text_vocab_size,
            text_length=config.text_length,
            dim=config.text_dim,
            num_layers=config.text_layers,
            num_heads=config.text_heads,
            embedding_dim=config.embedding_dim,
            activation=config.activation,
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.log_scale.device

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by to become logits: one over the learned temperature."""
        return self.log_scale.exp()

    @torch.no_grad()
    def limit_scale(self) -> None:
        """Bring the scale back to at most `MAX_SCALE`; due after every update (section 2.5)."""
        self.log_scale.clamp_(max=math.log(MAX_SCALE))

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Embed pictures in [-1, 1] as unit vectors, float32 also under autocast."""
        return self.images(images)

    def encode_texts(self, text: Int64[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """Embed texts as unit vectors, float32 also under autocast.

        Args:
            text: Tokens in [0, text_vocab_size), with any larger id where a text ends; one that
                fills all positions may go without.
        """
        return self.texts(text)


@torch.no_grad()
def embed_images(
    model: CLIPModel, images: Float[Tensor, "N 3 H W"], *, batch_size: int = 64
) -> Float[Tensor, "N E"]:
    """Embed any number of pictures, see `CLIPModel.encode_images`, so many at a time."""
    parts = [model.encode_images(part.to(model.device)) for part in images.split(batch_size)]
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(
    model: CLIPModel, text: Int64[Tensor, "N T"], *, batch_size: int = 64
) -> Float[Tensor, "N E"]:
    """Embed any number of texts, see `CLIPModel.encode_texts`, so many at a time.

    They are taken by length, as a batch takes as long as its longest text.
    """
    order = model.texts.ends(text).argsort()
    parts = [model.encode_texts(part.to(model.device)) for part in text[order].split(batch_size)]
    return torch.cat(parts)[order.argsort()]


def alone(embeddings: Tensor) -> tuple[Tensor, int]:
    """The `Gather` of a single process."""
    return embeddings, 0


def cosines(some: Float[Tensor, "N E"], others: Float[Tensor, "M E"]) -> Float[Tensor, "N M"]:
    """The cosine of each unit vector with each of the others, exact also under autocast."""
    with torch.autocast(some.device.type, enabled=False):  # bfloat16 would round logits by 0.25
        return some @ others.mT


def contrastive_loss(
    images: Float[Tensor, "B E"],
    texts: Float[Tensor, "B E"],
    scale: Float[Tensor, ""],
    *,
    false: Float[Tensor, "M E"] | None = None,
    gather: Gather = alone,
) -> Float[Tensor, ""]:
    """Nats for telling each picture's text among all texts, and each text's picture: their mean.

    Over several ranks each has the loss of its own pairs against the pairs of all. The mean of the
    ranks' losses is the loss of the whole batch, and so is the mean of their gradients, if
    `gather` hands each rank the gradients that the others have for its embeddings.

    Args:
        images: Unit vectors.
        texts: Those of the texts that belong to them, in the same order.
        scale: What cosines are multiplied by.
        false: Unit vectors of more texts, which belong to no picture; None for none. A picture's
            text is told among them too.
        gather: Brings the embeddings of all ranks together.

    Source: figure 3; "When and Why Vision-Language Models Behave like Bags-Of-Words" (arXiv
    2210.01936), section 4, for false texts.
    """
    all_images, first = gather(images)
    all_texts, _ = gather(texts)
    own = first + torch.arange(len(images), device=images.device)
    candidates = all_texts if false is None else torch.cat([all_texts, gather(false)[0]])
    which_text = F.cross_entropy(scale * cosines(images, candidates), own)
    which_image = F.cross_entropy(scale * cosines(texts, all_images), own)
    return (which_text + which_image) / 2


def recall_at(k: int, similarity: Float[Tensor, "N N"]) -> float:
    """The share of rows whose own column is among their k highest; in a tie it comes last.

    Args:
        k: How many are looked at, at least 1.
        similarity: Row i's own column is column i.
    """
    at_least = (similarity >= similarity.diagonal()[:, None]).sum(dim=1)  # its own among them
    return float(((at_least >= 1) & (at_least <= k)).float().mean())  # 0 where it is no number


def recalls(similarity: Float[Tensor, "N N"], at: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Shares of pictures whose own caption is among the best, and of captions likewise.

    Args:
        similarity: A row for each picture; row i's own caption is column i.
        at: How many of the best count as found.

    Returns:
        "caption_recall_1" and "caption_recall_5" of the pictures, "picture_recall_1" and
        "picture_recall_5" of the captions; or for other numbers than 1 and 5.
    """
    return {
        f"{found}_recall_{k}": recall_at(k, rows)
        for found, rows in (("caption", similarity), ("picture", similarity.mT))
        for k in at
    }


def _blocks(
    dim: int, num_layers: int, num_heads: int, visible: Visible, activation: Activation
) -> nn.ModuleList:
    """Blocks as the paper's authors start them."""
    blocks = nn.ModuleList(
        TransformerBlock(dim, num_heads=num_heads, pattern=visible, activation=activation)
        for _ in range(num_layers)
    )
    into, out_of = dim**-0.5, (2 * num_layers * dim) ** -0.5
    for name, parameter in blocks.named_parameters():
        if name.endswith("projection.weight"):
            nn.init.normal_(parameter, std=out_of)
        elif name.endswith("qkv.weight"):
            nn.init.normal_(parameter, std=into)
        elif name.endswith("hidden.weight"):
            nn.init.normal_(parameter, std=into * 0.5**0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return blocks


def _read_out(
    x: Float[Tensor, "B D"], norm: nn.LayerNorm, projection: nn.Linear
) -> Float[Tensor, "B E"]:
    """Unit vectors of one position's state, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(projection(norm(x.float())), dim=-1)
