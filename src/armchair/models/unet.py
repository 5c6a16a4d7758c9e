"""The U-Net of DALL·E 2: its decoder and its upsamplers; and GLIDE's, and DDPM's.

    decoder = UNet(UNetConfig(image_size=64, channels=512, multipliers=(1, 2, 3, 4), ...))
    condition = decoder.encode({"text": text, "embedding": embedding})     # once
    prediction = decoder.denoise(x_t, t, condition)                        # at every step

What it is told decides what it is. With a caption and a CLIP embedding it is the decoder of
DALL·E 2, with a caption alone GLIDE, with nothing a DDPM; with a small picture to enlarge, which
is laid beside x_t as further channels, an upsampler.

A caption passes through a transformer: its states are tokens to attend to, and the last of them
is added to the timestep. A CLIP embedding is added to the timestep too, and gives four tokens more.

Sizes: the decoder's table 3 row gives 3.56 billion parameters here (3.5 in the paper), the first
upsampler's 730 million (700), and the second's 282 million: 6% below the paper's 300, which
describes its blocks no closer than by their widths and number.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.1 and table 3; "GLIDE" (arXiv 2112.10741), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.errors import ConfigError
from armchair.diffusion.guidance import Condition
from armchair.diffusion.process import ProcessConfig
from armchair.models.diffusion_model import DiffusionModel
from armchair.models.text_stream import TextStream, TextStreamConfig
from armchair.nn.embeddings import TimestepEmbedding
from armchair.nn.normalisation import Norm
from armchair.nn.resampling import resize
from armchair.nn.unet_blocks import (
    Resampling,
    ResidualBlock,
    SpatialAttention,
    zeroed,
)

_EMBEDDING_TOKENS = 4
_COUNTS = (
    "image_size",
    "channels",
    "num_blocks",
    "patch_size",
    "head_dim",
    "embedding_dim",
    "low_size",
)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What `UNet` is built from.

    Attributes:
        image_size: Side of the pictures in pixels, a multiple of `patch_size` and of 2 for each
            level but the first.
        channels: Width of the first level, even.
        multipliers: Width of each level in units of that; each has half the side of the one before.
        num_blocks: Residual blocks of a level on the way down; one more on the way up.
        process: What it is trained to reverse.
        patch_size: Pixels along one side of the blocks that are folded into channels before the
            first level and unfolded after the last, whose side is the picture's divided by it.
        attention_sizes: Sides of the levels at which there is attention; none for convolutions
            only.
        head_dim: Width of an attention head.
        dropout: Share of each block's activations dropped in training.
        text: The transformer over captions; None for no captions.
        embedding_dim: Dimensions of a CLIP embedding; None for no embeddings.
        low_size: Side of the pictures that are to be enlarged; None for none.
    """

    image_size: int
    channels: int
    multipliers: tuple[int, ...]
    num_blocks: int
    process: ProcessConfig
    patch_size: int = 1
    attention_sizes: tuple[int, ...] = ()
    head_dim: int = 64
    dropout: float = 0.0
    text: TextStreamConfig | None = None
    embedding_dim: int | None = None
    low_size: int | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(name, got=value, expected="at least 1")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ConfigError("multipliers", got=self.multipliers, expected="each at least 1")
        if self.channels % 2:
            raise ConfigError("channels", got=self.channels, expected="an even number")
        if self.image_size % self.side_multiple:
            levels = f"{len(self.multipliers)} levels of patches of {self.patch_size}"
            expected = f"a multiple of {self.side_multiple}, for {levels}"
            raise ConfigError("image_size", got=self.image_size, expected=expected)
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", got=self.dropout, expected="0 or more, less than 1")
        self._check_attention()
        if self.low_size is not None and self.image_size % self.low_size:
            expected = f"a divisor of image_size = {self.image_size}"
            raise ConfigError("low_size", got=self.low_size, expected=expected)

    def _check_attention(self) -> None:
        sizes = self.sides
        if set(self.attention_sizes) - set(sizes):
            expected = "some of " + ", ".join(map(str, sizes))
            raise ConfigError("attention_sizes", got=self.attention_sizes, expected=expected)
        if (self.text or self.embedding_dim) and not self.attention_sizes:
            expected = "a level at least, as captions and embeddings are attended to"
            raise ConfigError("attention_sizes", got=(), expected=expected)
        for level, size in enumerate(sizes):
            width = self.channels * self.multipliers[level]
            attends = size in self.attention_sizes or (self.attention_sizes and size == sizes[-1])
            if attends and width % self.head_dim:
                expected = f"a divisor of {width}, the width at a side of {size}"
                raise ConfigError("head_dim", got=self.head_dim, expected=expected)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """What the model is told: "text", "embedding", "low", or some of them, or nothing."""
        told = {"text": self.text, "embedding": self.embedding_dim, "low": self.low_size}
        return tuple(name for name, value in told.items() if value is not None)

    @property
    def side_multiple(self) -> int:
        """What the sides of all pictures that pass through are a multiple of."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    @property
    def sides(self) -> list[int]:
        """The side of each level, in patches."""
        first = self.image_size // self.patch_size
        return [first >> level for level in range(len(self.multipliers))]

    @property
    def context_dim(self) -> int | None:
        """Width of the tokens that are attended to; None if there are none."""
        if self.text is not None:
            return self.text.dim
        return None if self.embedding_dim is None else 4 * self.channels


class _Step(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, block: ResidualBlock, attention: SpatialAttention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, vector: Tensor, context: Tensor | None) -> Tensor:
        x = self.block(x, vector)
        return x if self.attention is None else self.attention(x, context)


class UNet(DiffusionModel):
    """A U-Net of residual blocks, told the timestep and whatever else its config says.

    Args:
        config: Its sizes, its process, and what it is told.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config.process)
        self.config = config
        self.vector_dim = 4 * config.channels
        self.time = TimestepEmbedding(config.channels, dim=self.vector_dim)
        if config.text is not None:
            self.text = TextStream(config.text, pattern="all")
            self.text_vector = nn.Linear(config.text.dim, self.vector_dim)
        if config.embedding_dim is not None:
            assert config.context_dim is not None
            tokens_dim = _EMBEDDING_TOKENS * config.context_dim
            self.embedding_tokens = nn.Linear(config.embedding_dim, tokens_dim)
            self.embedding_vector = nn.Linear(config.embedding_dim, self.vector_dim)
        in_channels, area = 3 if config.low_size is None else 6, config.patch_size**2
        self.stem = nn.Conv2d(area * in_channels, config.channels, 3, padding=1)
        self.down, self.middle, self.up = self._build_steps()
        self.norm = Norm(config.channels)
        out_channels = 6 if config.process.learned_variance else 3
        self.head = zeroed(nn.Conv2d(config.channels, area * out_channels, 3, padding=1))

    def _build_steps(self) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
        """The way down, the middle, and the way up."""
        config = self.config
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        attends = [side in config.attention_sizes for side in config.sides]
        width, left = config.channels, [config.channels]  # left: what the way down leaves behind
        down, middle, up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, out in enumerate(widths):
            for _ in range(config.num_blocks):
                down.append(self._step(width, out, attends=attends[level]))
                width = out
                left.append(width)
            if level < len(widths) - 1:
                down.append(self._step(width, width, resampling="down"))
                left.append(width)
        middle.append(self._step(width, width, attends=any(attends)))
        middle.append(self._step(width, width))
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(config.num_blocks + 1):
                up.append(self._step(width + left.pop(), out, attends=attends[level]))
                width = out
            if level > 0:
                up.append(self._step(width, width, resampling="up"))
        return down, middle, up

    def _step(
        self,
        in_channels: int,
        out_channels: int,
        *,
        attends: bool = False,
        resampling: Resampling | None = None,
    ) -> _Step:
        config = self.config
        block = ResidualBlock(
            in_channels,
            out_channels,
            vector_dim=self.vector_dim,
            dropout=config.dropout,
            resampling=resampling,
        )
        if not attends:
            return _Step(block, None)
        attention = SpatialAttention(
            out_channels, head_dim=config.head_dim, context_dim=config.context_dim
        )
        return _Step(block, attention)

    @property
    def role(self) -> str:
        """A decoder, or an upsampler to so many pixels."""
        config = self.config
        if config.low_size is None:
            return "the decoder"
        return f"the upsampler from {config.low_size} to {config.image_size} pixels"

    def null(self, condition: Condition) -> Condition:
        """The condition with captions of padding and embeddings of zeros.

        A picture to enlarge stays: without it there is nothing to do.

        Source: DALL·E 2, section 2.1.
        """
        nulls = dict(condition)
        if "text" in nulls:
            nulls["text"] = self.text.null_text(len(nulls["text"])).to(nulls["text"].device)
        if "embedding" in nulls:
            nulls["embedding"] = torch.zeros_like(nulls["embedding"])
        return nulls

    def encode(self, condition: Condition) -> Condition:
        """Prepare a condition, once for all timesteps.

        Args:
            condition: What `config.condition_names` names: "text", B T, tokens padded to their
                length; "embedding", B E, CLIP's of pictures, unit vectors; "low", B 3 h w,
                pictures in [-1, 1], of any size for an upsampler enlarges whatever it gets.

        Returns:
            "context", B S D, tokens to attend to; "vector", B V, what is added to the timestep;
            "low", B 3 H W, enlarged.

        Raises:
            ConfigError: Something is missing, or there is more.
        """
        if set(condition) != set(self.config.condition_names):
            expected = ", ".join(self.config.condition_names) or "nothing"
            raise ConfigError("condition", got=sorted(condition), expected=expected)
        encoded: dict[str, Tensor] = {}
        tokens, vectors = [], []
        if "text" in condition:
            states = self.text(condition["text"])
            tokens.append(states)
            vectors.append(self.text_vector(states[:, -1]))
        if "embedding" in condition:
            embedding = condition["embedding"] * condition["embedding"].shape[1] ** 0.5
            tokens.append(self.embedding_tokens(embedding).unflatten(1, (_EMBEDDING_TOKENS, -1)))
            vectors.append(self.embedding_vector(embedding))
        if tokens:
            encoded["context"] = torch.cat(tokens, dim=1)
            encoded["vector"] = torch.stack(vectors).sum(dim=0)
        if self.config.low_size is not None:
            low = condition["low"]
            factor = self.config.image_size // self.config.low_size
            encoded["low"] = resize(low, factor * low.shape[-1])
        return encoded

    def forward(
        self, x_t: Float[Tensor, "B 3 H W"], t: Int[Tensor, " B"], condition: Condition
    ) -> Float[Tensor, "B C H W"]:
        """What the process asks for, C = 3 channels; with a learned variance 3 more.

        Args:
            x_t: Noisy pictures, of any side that the levels divide.
            t: Timesteps.
            condition: As `encode` gave it.

        Returns:
            Float32 also under autocast.

        Raises:
            ConfigError: The levels do not divide the pictures' sides.
        """
        if any(side % self.config.side_multiple for side in x_t.shape[2:]):
            expected = f"sides that are multiples of {self.config.side_multiple}"
            raise ConfigError("x_t", got=tuple(x_t.shape), expected=expected)
        x = torch.cat([x_t, condition["low"]], dim=1) if "low" in condition else x_t
        vector = self.time(t)
        if "vector" in condition:
            vector = vector + condition["vector"]
        vector, context = F.silu(vector), condition.get("context")
        x = F.pixel_unshuffle(x, self.config.patch_size)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        left = [x]
        for step in _steps(self.down):
            x = step(x, vector, context)
            left.append(x)
        for step in _steps(self.middle):
            x = step(x, vector, context)
        for step in _steps(self.up):
            if step.block.resampling is None:
                x = torch.cat([x, left.pop()], dim=1)
            x = step(x, vector, context)
        with torch.autocast(x.device.type, enabled=False):
            output = self.head(F.silu(self.norm(x.float())))
        return F.pixel_shuffle(output, self.config.patch_size)


def _steps(modules: nn.ModuleList) -> Iterable[_Step]:
    return modules  # type: ignore[return-value]
