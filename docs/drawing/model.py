"""Figures that look into a trained model: its tokens, its codebook, and its attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from drawing.style import HEAT, PIT, bare, new_figure
from matplotlib.colors import rgb_to_hsv
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from armchair.core.images import contact_sheet, to_pil, to_tensor
from armchair.data.scenes import Scenes, ScenesConfig
from armchair.data.scenes.wording import with_article
from armchair.nn.masks import dense_mask
from armchair.pipelines.dalle1 import DALLE1
from armchair.text.bpe import spell

_PAIR = ("armchair", "avocado")  # never shown in training
_NEIGHBOURS = 2  # copies of a code around the one that is shown
_COLUMNS = 4  # of maps of attention


@dataclass(frozen=True)
class Example:
    """A picture of the held-out pair, with a caption, and both in tokens.

    Attributes:
        pixels: H W 3, 8-bit.
        caption: What it shows.
        text: 1 T, padded.
        codes: 1 h w.
    """

    pixels: np.ndarray
    caption: str
    text: Tensor
    codes: Tensor


@torch.no_grad()
def example(model: DALLE1) -> Example:
    """The first large avocado armchair of the held-out scenes, as the model reads it."""
    size = model.autoencoder.config.image_size
    scenes = Scenes(ScenesConfig(num_pictures=10_000, size=size, split="held_out"))
    index = next(
        i
        for i in range(len(scenes))
        if scenes.scene(i).pairs == (_PAIR,) and scenes.scene(i).size == "large"
    )
    pixels, background = scenes.pixels(index), scenes.scene(index).background
    caption = f"an avocado armchair on {with_article(background)} background"
    text = torch.from_numpy(model.tokenizer.encode_batch([caption], truncate=True))
    return Example(pixels, caption, text, model.autoencoder.encode(to_tensor(pixels)[None]))


def words_of(model: DALLE1, caption: str) -> list[tuple[str, list[int]]]:
    """The caption's words, each with the places of its tokens."""
    words: list[tuple[str, list[int]]] = []
    fresh = True
    for place, token in enumerate(model.tokenizer.encode(caption)):
        if place == model.tokenizer.config.context_length:
            break
        if fresh:
            words.append(("", []))
        piece = model.tokenizer.table.tokens[token]
        word, places = words[-1]
        words[-1] = (word + spell(piece).removesuffix("</w>"), [*places, place])
        fresh = piece.endswith(b" ")
    return words


def draw_tokens(model: DALLE1) -> Figure:
    """A caption in tokens; a picture, its codes, and what they decode to."""
    shown = example(model)
    grid, patch = model.autoencoder.config.grid_size, model.autoencoder.config.downsampling
    again = np.asarray(model.decode(shown.codes)[0])
    figure, axes = new_figure(11, 4.3, columns=3)
    tokens = [spell(model.tokenizer.table.tokens[t]) for t in model.tokenizer.encode(shown.caption)]
    figure.suptitle("  ".join(tokens), family="DejaVu Sans Mono", fontsize=11, color=PIT)
    means = again.reshape(grid, patch, grid, patch, 3).mean((1, 3)) / 255
    panels = {"the picture": shown.pixels, "its codes": 0.35 * means + 0.65, "decoded": again}
    for panel, (title, picture) in zip(axes[0], panels.items(), strict=True):
        panel.imshow(picture, interpolation="nearest")
        panel.set_title(title)
        bare(panel)
    for (y, x), code in np.ndenumerate(shown.codes[0].numpy()):
        axes[0, 1].text(x, y, str(code), ha="center", va="center", fontsize=88 / grid)
    return figure


@torch.no_grad()
def draw_codebook(model: DALLE1) -> Image.Image:
    """Every code amid copies of itself, decoded; greys first, then by hue."""
    config = model.autoencoder.config
    side, patch = 2 * _NEIGHBOURS + 1, config.downsampling
    middle = slice(_NEIGHBOURS * patch, (_NEIGHBOURS + 1) * patch)
    tiles: list[Image.Image] = []
    for codes in torch.arange(config.codebook_size).split(64):
        images = model.autoencoder.decode(codes[:, None, None].expand(-1, side, side))
        tiles += to_pil(images[..., middle, middle])
    colours = rgb_to_hsv(np.stack([np.asarray(tile).mean((0, 1)) for tile in tiles]) / 255)
    hue, saturation, value = colours.T
    band = np.where(saturation < 0.15, -1, np.floor(hue * 16))
    order = np.lexsort((value, band))
    columns = int(np.ceil(config.codebook_size**0.5))
    return contact_sheet([tiles[i] for i in order], columns=columns, scale=max(1, 24 // patch))


@torch.no_grad()
def text_attention(model: DALLE1, text: Tensor, codes: Tensor) -> Tensor:
    """What share of its attention each image token pays to each text token as it is predicted.

    The token at a place is predicted by the position before it: place 0 by the last of the text.

    Args:
        model: The model.
        text: 1 T, padded.
        codes: 1 h w.

    Returns:
        Means over layers and heads, h·w T; a line sums to what the text gets beside the image.
    """
    transformer = model.transformer
    caught: list[Tensor] = []
    hooks = [
        block.attention.register_forward_pre_hook(
            lambda attention, given: caught.append(attention.qkv(given[0]))
        )
        for block in transformer.blocks
    ]
    try:
        transformer(text, codes.flatten(1))
    finally:
        for hook in hooks:
            hook.remove()
    text_length, shares = text.shape[1], []
    for qkv, pattern in zip(caught, transformer.patterns, strict=True):
        q, k, _ = qkv[0].unflatten(-1, (3, transformer.config.num_heads, -1)).permute(1, 2, 0, 3)
        scores = (q @ k.mT) * q.shape[-1] ** -0.5  # N L L
        weights = scores.masked_fill(~dense_mask(pattern), float("-inf")).softmax(-1)
        shares.append(weights[:, text_length - 1 : -1, :text_length].mean(0))
    return torch.stack(shares).mean(0)


def draw_attention(model: DALLE1) -> Figure:
    """For each word of a caption, its share of the attention that image tokens pay to words."""
    shown = example(model)
    grid = model.autoencoder.config.grid_size
    attention = text_attention(model, shown.text, shown.codes)  # S T
    words = words_of(model, shown.caption)
    shares = torch.stack([attention[:, places].sum(1) for _, places in words])  # words S
    shares = shares / shares.sum(0)
    maps = shares.view(-1, grid, grid).numpy()
    rows = -(-(len(maps) + 1) // _COLUMNS)
    figure, axes = new_figure(9, 2.25 * rows, rows=rows, columns=_COLUMNS)
    for panel in axes.flat:
        panel.set_axis_off()
    axes.flat[0].imshow(shown.pixels)
    axes.flat[0].set_title("the picture", color=PIT)
    top = float(np.quantile(maps, 0.995))
    for panel, (word, _), heat in zip(axes.flat[1:], words, maps, strict=False):
        drawn = panel.imshow(100 * heat, cmap=HEAT, vmin=0, vmax=100 * top)
        panel.set_title(word)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="% of the attention to words")
    return figure
