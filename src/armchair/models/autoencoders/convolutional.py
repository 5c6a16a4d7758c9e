"""The convolutional encoder and decoder that every image tokenizer here shares.

Source: "Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), appendix A.1.

    encoder = Encoder(AutoencoderConfig(), out_channels=8192)
    encoder(images)                       # B 3 256 256 -> B 8192 32 32
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.nn.residual_convolution import BottleneckBlock, convolution

STATISTICS = 6  # decoder outputs for each pixel: three means and three log-scales


_MAX_GROUPS = 16


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The shape of the encoder and decoder; the defaults are the paper's.

    Attributes:
        image_size: Height and width of the pictures, in pixels.
        codebook_size: Number of distinct codes.
        codebook_dim: Channels of a code's embedding, the decoder's input.
        width: Channels at full resolution; each group doubles them.
        num_groups: Groups of blocks; between two groups the resolution halves.
        blocks_per_group: Residual blocks in a group.
        patch_size: Pixels along one side of the blocks that are folded into channels before the
            first convolution and unfolded after the last; 1 in the paper. On a CPU the layers at
            full resolution cost the most and do the least: 2 is three times as fast.
        input_kernel: Side of the encoder's first kernel, odd; 7 in the paper. Over folded blocks of
            2x2 pixels, 3 sees nearly as many pixels at a fifth of the cost.
        residual_gain: Factor on each residual path; None for the paper's 1/(number of blocks)².
            A laptop's few thousand steps want a larger one: the paths must matter early.
        detach_scale: Train the likelihood's scale as a read-out of the features, without a
            gradient into them: for small budgets, where another loss trains the means. False in
            the paper.
        min_log_scale: Floor of the likelihood's ln b; None in the paper. Without one, flat graphics
            have no finite best scale.
    """

    image_size: int = 256
    codebook_size: int = 8192
    codebook_dim: int = 128
    width: int = 256
    num_groups: int = 4
    blocks_per_group: int = 2
    patch_size: int = 1
    input_kernel: int = 7
    residual_gain: float | None = None
    detach_scale: bool = False
    min_log_scale: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "codebook_size",
            "codebook_dim",
            "num_groups",
            "blocks_per_group",
            "patch_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(name, got=getattr(self, name), expected="at least 1")
        if self.num_groups > _MAX_GROUPS:
            expected = f"at most {_MAX_GROUPS}, as each halves the picture"
            raise ConfigError("num_groups", got=self.num_groups, expected=expected)
        if self.input_kernel < 1 or self.input_kernel % 2 == 0:
            expected = "odd, at least 1"
            raise ConfigError("input_kernel", got=self.input_kernel, expected=expected)
        if self.width < 4 or self.width % 4:
            raise ConfigError("width", got=self.width, expected="a positive multiple of 4")
        if self.image_size < 1 or self.image_size % self.downsampling:
            raise ConfigError(
                "image_size",
                got=self.image_size,
                expected=f"a positive multiple of {self.downsampling}, the pixels of a code",
            )

    @property
    def downsampling(self) -> int:
        """Pixels along one side of a code's patch."""
        return self.patch_size * 2 ** (self.num_groups - 1)

    @property
    def grid_size(self) -> int:
        """Codes along one side of a picture."""
        return self.image_size // self.downsampling

    @property
    def gain(self) -> float:
        """The factor on each residual path."""
        if self.residual_gain is not None:
            return self.residual_gain
        return 1 / (self.num_groups * self.blocks_per_group) ** 2


class Encoder(nn.Module):
    """Pictures to a grid of features: a convolution, then groups of blocks with max-pools between.

    Args:
        config: The shape.
        out_channels: Channels of the last 1x1 convolution: one logit for each code, or a latent.
    """

    def __init__(self, config: AutoencoderConfig, *, out_channels: int) -> None:
        super().__init__()
        widths = [config.width * 2**group for group in range(config.num_groups)]
        self.patch_size = config.patch_size
        self.input = convolution(3 * config.patch_size**2, config.width, config.input_kernel)
        self.groups = nn.ModuleList(
            _group(before, after, config, kernel_sizes=(3, 3, 3, 1))
            for before, after in pairwise([config.width, *widths])
        )
        self.output = convolution(widths[-1], out_channels, 1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Encode pictures in [-1, 1]; the height and width shrink by the downsampling factor."""
        return self.output(self.features(images))

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """What the last 1x1 convolution sees, not negative."""
        features = self.input(F.pixel_unshuffle(images, self.patch_size))
        for index, group in enumerate(self.groups):
            if index:
                features = F.max_pool2d(features, 2)
            features = group(features)
        return F.relu(features)


class Decoder(nn.Module):
    """A grid of code embeddings to the statistics of each pixel.

    The codebook itself is the caller's: in the paper it is the decoder's first 1x1 convolution,
    which maps a one-hot code to `codebook_dim` channels.

    Args:
        config: The shape.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**group for group in reversed(range(config.num_groups))]
        self.groups = nn.ModuleList(
            _group(before, after, config, kernel_sizes=(1, 3, 3, 3), upsample=index > 0)
            for index, (before, after) in enumerate(pairwise([config.codebook_dim, *widths]))
        )
        self.output = convolution(widths[-1], STATISTICS * config.patch_size**2, 1)

    def forward(self, embeddings: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 6 H W"]:
        """Decode embeddings to float32 statistics: three means, then three log-scales."""
        features = embeddings
        for group in self.groups:
            features = group(features)
        means, log_scales = self._statistics(F.relu(features))
        if self.config.min_log_scale is not None:
            log_scales = log_scales.clamp_min(self.config.min_log_scale)
        statistics = torch.cat([means, log_scales], dim=1)
        return F.pixel_shuffle(statistics, self.config.patch_size).float()

    def _statistics(self, features: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.detach_scale:
            means, log_scales = self.output(features).chunk(2, dim=1)
            return means, log_scales
        weights = self.output.weight.chunk(2)
        biases = self.output.bias.chunk(2)  # type: ignore[union-attr]
        return (
            F.conv2d(features, weights[0], biases[0]),
            F.conv2d(features.detach(), weights[1], biases[1]),
        )


def _group(
    in_channels: int,
    out_channels: int,
    config: AutoencoderConfig,
    *,
    kernel_sizes: tuple[int, ...],
    upsample: bool = False,
) -> nn.Sequential:
    """Residual blocks; the first changes the width and, with `upsample`, doubles the resolution."""
    return nn.Sequential(
        *(
            BottleneckBlock(
                in_channels if block == 0 else out_channels,
                out_channels,
                kernel_sizes=kernel_sizes,
                gain=config.gain,
                upsample=upsample and block == 0,
            )
            for block in range(config.blocks_per_group)
        )
    )
