"""The transformer of DALL·E: one stream of text tokens, then the image's tokens in raster order.

    model = TextToImageTransformer(TextToImageConfig(text_vocab_size=512, ...))
    loss = model.loss(text, codes)                   # nats per token, for each kind
    weighted_loss(loss).backward()                   # 1/8 text + 7/8 image

Every position predicts the next token. The last text position predicts the first image token, so
no token marks the start of the image; the first text token is given and never predicted. Text and
image have a head each, applied only to the positions that predict their kind.

Source: "Zero-Shot Text-to-Image Generation", section 2.2 and appendix B.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from armchair.core.device import product_dtype
from armchair.core.errors import ConfigError
from armchair.nn.blocks import TransformerBlock, init_weights
from armchair.nn.embeddings import ImageEmbedding, TextEmbedding
from armchair.nn.kv_cache import Index, KVCache, LayerCache
from armchair.nn.linear_cross_entropy import linear_cross_entropy
from armchair.nn.masks import AttentionName, layer_patterns


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig:
    """What `TextToImageTransformer` is built from.

    Attributes:
        text_vocab_size: Text tokens, the padding not counted.
        text_length: Text positions; position i has the padding token `text_vocab_size + i`.
        image_vocab_size: Image tokens, the size of the codebook.
        grid_size: Side of the square grid of image tokens.
        dim: Width of the stream, a multiple of `num_heads`.
        num_layers: Transformer blocks.
        num_heads: Attention heads of each block.
        attention: "paper" for row, column, row, row, … and a convolution last; "full" for full
            attention in every layer.
        conv_kernel: Side of the convolution pattern's kernel, odd.
        dropout: Share of the embeddings and of each branch's outputs dropped in training.
        checkpoint_activations: Recompute each block in the backward pass instead of keeping its
            activations: less memory, a third more work.
    """

    text_vocab_size: int
    text_length: int
    image_vocab_size: int
    grid_size: int
    dim: int
    num_layers: int
    num_heads: int
    attention: AttentionName = "paper"
    conv_kernel: int = 11
    dropout: float = 0.0
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        for field in (
            "text_vocab_size",
            "text_length",
            "image_vocab_size",
            "grid_size",
            "dim",
            "num_layers",
            "num_heads",
        ):
            if getattr(self, field) < 1:
                raise ConfigError(field, got=getattr(self, field), expected="at least 1")
        if self.dim % self.num_heads:
            near = max(1, round(self.dim / self.num_heads)) * self.num_heads
            expected = f"a multiple of num_heads = {self.num_heads}"
            raise ConfigError("dim", got=self.dim, expected=expected, hint=f"try {near}")
        if not 0 <= self.dropout < 1:
            raise ConfigError("dropout", got=self.dropout, expected="0 or more, less than 1")
        layer_patterns(  # refuses an unknown name and an even kernel
            self.attention,
            1,
            text_length=self.text_length,
            grid_size=self.grid_size,
            conv_kernel=self.conv_kernel,
        )

    @property
    def image_length(self) -> int:
        """Image tokens of one picture."""
        return self.grid_size**2


class TextToImageLoss(NamedTuple):
    """Mean cross-entropies, nats per token of each kind.

    Attributes:
        text: Mean over each caption's predicted tokens, then over the batch.
        image: Mean over the image tokens of the batch.
    """

    text: Float[Tensor, ""]
    image: Float[Tensor, ""]


class TextToImageTransformer(nn.Module):
    """A decoder-only transformer over text and image tokens.

    Args:
        config: Its sizes and patterns.
    """

    def __init__(self, config: TextToImageConfig) -> None:
        super().__init__()
        self.config = config
        self.patterns = layer_patterns(
            config.attention,
            config.num_layers,
            text_length=config.text_length,
            grid_size=config.grid_size,
            conv_kernel=config.conv_kernel,
        )
        self.text_embedding = TextEmbedding(
            config.text_vocab_size, text_length=config.text_length, dim=config.dim
        )
        self.image_embedding = ImageEmbedding(
            config.image_vocab_size, grid_size=config.grid_size, dim=config.dim
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.dim, num_heads=config.num_heads, pattern=pattern, dropout=config.dropout
            )
            for pattern in self.patterns
        )
        self.norm = nn.LayerNorm(config.dim)
        self.text_head = nn.Linear(config.dim, config.text_vocab_size + 1)  # the last: padding
        self.image_head = nn.Linear(config.dim, config.image_vocab_size)
        init_weights(self, num_layers=config.num_layers)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.norm.weight.device

    def null_text(self, batch_size: int) -> Int64[Tensor, "B T"]:
        """The prompt that says nothing: padding at every position."""
        return self.text_embedding.null_text(batch_size)

    def forward(
        self, text: Int64[Tensor, "B T"], codes: Int64[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T1 V"], Float[Tensor, "B S W"]]:
        """Predict every token from those before it.

        Args:
            text: Text tokens in [0, text_vocab_size), padded to the full text length with each
                position's own padding token.
            codes: All image tokens in raster order, in [0, image_vocab_size).

        Returns:
            Text logits for the text tokens from the second on, whose last class is "padding", and
            image logits for every image token; float32 also under autocast.
        """
        of_text, of_image = self._hidden(text, codes)
        return self._logits(self.text_head, of_text), self._logits(self.image_head, of_image)

    def _hidden(self, text: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What predicts text tokens from the second on, B T-1 D, and all image tokens, B S D."""
        x = torch.cat([self.text_embedding(text), self.image_embedding(codes)], dim=1)  # B L D
        x = self.dropout(x)
        for block in self.blocks:
            if self.config.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        last_text = text.shape[1] - 1
        return x[:, :last_text], x[:, last_text:-1]

    def loss(
        self,
        text: Int64[Tensor, "B T"],
        codes: Int64[Tensor, "B S"],
        *,
        drop_condition: Bool[Tensor, " B"] | None = None,
    ) -> TextToImageLoss:
        """Mean cross-entropies of the text and of the image.

        A caption's predicted tokens are its real ones from the second on and the first padding
        after them, which says where it ends; the certain rest of the padding would only dilute the
        mean. Captions count alike, whatever their lengths, so the loss of a batch is the mean of
        the losses of its equal parts. A dropped caption predicts no text and counts as zero.

        Args:
            text: See `forward`.
            codes: See `forward`.
            drop_condition: Where True, the null prompt stands in for the caption, so that the
                model also learns to draw without one, as guidance needs it.
        """
        if drop_condition is not None:
            text = torch.where(drop_condition[:, None], self.null_text(len(text)), text)
        of_text, of_image = self._hidden(text, codes)
        is_padding = text >= self.config.text_vocab_size
        counted = ~is_padding[:, :-1]  # the token before is real: B T-1
        targets = text.clamp(max=self.config.text_vocab_size)[:, 1:]
        shares = counted / counted.sum(dim=1, keepdim=True).clamp(min=1) / len(text)
        even = torch.full(codes.shape, 1 / codes.numel(), device=codes.device)
        return TextToImageLoss(
            text=self._cross_entropy(self.text_head, of_text, targets, shares),
            image=self._cross_entropy(self.image_head, of_image, codes, even),
        )

    def _cross_entropy(
        self, head: nn.Linear, x: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = self.norm(x.float()).flatten(0, 1)
        return linear_cross_entropy(rows, head, targets.flatten(), weights.flatten())

    def new_cache(self, num_prompts: int) -> KVCache:
        """Empty caches for prompts, and a row of each, in the dtype that attention runs in."""
        config = self.config
        return KVCache.allocate(
            self.patterns,
            num_prompts=num_prompts,
            num_heads=config.num_heads,
            head_dim=config.dim // config.num_heads,
            dtype=product_dtype(self.device, otherwise=self.norm.weight.dtype),
            device=self.device,
        )

    def prefill(
        self, text: Int64[Tensor, "B T"], codes: Int64[Tensor, "B P"], cache: KVCache
    ) -> Float[Tensor, "B D"]:
        """Run the text and the first P image tokens, and keep their keys and values.

        Returns:
            The last position's hidden state, which `image_logits` turns into a prediction.
        """
        x = torch.cat([self.text_embedding(text), self.image_embedding(codes)], dim=1)
        for block, layer in self._cached_blocks(cache):
            x = block.prefill(x, layer)
        return x[:, -1]

    def decode(
        self, codes: Int64[Tensor, " B"], cache: KVCache, index: Index
    ) -> Float[Tensor, "B D"]:
        """Run the one image token at raster position `index`, whose past is in the cache.

        Returns:
            Its hidden state, which `image_logits` turns into a prediction of the next one.
        """
        x = self.image_embedding.at(codes, index)[:, None]  # B 1 D
        for block, layer in self._cached_blocks(cache):
            x = block.decode(x, layer, index)
        return x[:, 0]

    def image_logits(self, hidden: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        """Predict the image token that follows each hidden state."""
        return self._logits(self.image_head, hidden)

    def _cached_blocks(self, cache: KVCache) -> Iterator[tuple[TransformerBlock, LayerCache]]:
        blocks = cast(Iterable[TransformerBlock], self.blocks)
        return zip(blocks, cache.layers, strict=True)

    def _logits(self, head: nn.Linear, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return head(self.norm(x.float()))


def weighted_loss(
    loss: TextToImageLoss, *, text_weight: float = 1 / 8, image_weight: float = 7 / 8
) -> Float[Tensor, ""]:
    """The training loss: the kinds' losses under the paper's weights (section 2.2)."""
    return text_weight * loss.text + image_weight * loss.image
