"""Figures of what is learned and how: merges, the relaxation, schedules."""

from __future__ import annotations

import math

import numpy as np
import torch
from drawing.style import FAINT, GREEN, INK, PIT, bare, new_figure
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armchair.core.random import torch_generator
from armchair.core.schedules import Schedule
from armchair.models.autoencoders.dvae import gumbel_like
from armchair.models.autoencoders.likelihoods import logit_laplace_nll
from armchair.recipes import build_recipe
from armchair.text.bpe import MergeTable, merge_history, spell
from armchair.training.loop import TrainingConfig

_CORPUS = {"old": 7, "older": 3, "finest": 9, "lowest": 4}


def draw_relaxation() -> Figure:
    """One relaxed draw among 16 codes at three temperatures, and the logit-Laplace density."""
    figure, axes = new_figure(11, 2.9, columns=4, width_ratios=(1, 1, 1, 1.5))
    generator = torch_generator("figure of the relaxation", 14)
    logits = 1.5 * torch.randn(16, generator=generator)
    noisy = logits + gumbel_like(logits, generator)
    for panel, (name, tau) in zip(
        axes[0], {"1": 1, "1/4": 1 / 4, "1/16": 1 / 16}.items(), strict=False
    ):
        panel.bar(range(len(noisy)), torch.softmax(noisy / tau, 0).numpy(), color=GREEN)
        panel.set(title=f"τ = {name}", ylim=(0, 1.02), xlabel="code", xticks=[])
    axes[0, 0].set_ylabel("share of each code")
    panel = axes[0, 3]
    pixels = torch.linspace(-1, 1, 511)
    for (mean, scale), colour in zip(
        ((0.0, 1.0), (0.0, 0.25), (1.4, 0.25)), (FAINT, GREEN, PIT), strict=True
    ):
        statistics = torch.tensor([mean] * 3 + [math.log(scale)] * 3)[None, :, None, None]
        images = pixels[:, None, None, None].expand(-1, 3, 1, 1)
        nll = logit_laplace_nll(images, statistics.expand(len(pixels), -1, 1, 1))
        label = f"μ = {mean:g}, b = {scale:g}"
        panel.plot((pixels + 1) * 127.5, torch.exp(-nll / 3), color=colour, label=label)
    panel.set(title="logit-Laplace density", xlabel="pixel value", xlim=(0, 255), ylim=(0, None))
    panel.legend(loc="upper left")
    return figure


def draw_schedules() -> Figure:
    """What changes during training, in the paper's recipe and in the shipped one."""
    figure, axes = new_figure(11, 4.9, rows=2, columns=4)
    for panels, name in zip(axes, ("dalle1-paper", "scenes"), strict=True):
        recipe = build_recipe(name)
        loss, first = recipe.autoencoder_loss, recipe.autoencoder_training
        second = recipe.transformer_training
        logarithmic = first.num_images // first.batch_size > 100_000
        _plot(panels[0], loss.temperature, first, GREEN)
        _plot(panels[1], loss.noise, first, GREEN)
        _plot(panels[2], loss.kl_weight, first, GREEN)
        _plot(panels[3], first.optimizer.learning_rate, first, GREEN, label="autoencoder")
        _plot(panels[3], second.optimizer.learning_rate, second, PIT, label="transformer")
        for panel in panels:
            panel.set_xscale("log" if logarithmic else "linear")
            panel.grid(axis="y")
            panel.set_ylim(bottom=-0.02 * max(1.0, panel.get_ylim()[1]))
        panels[3].set_yscale("log")
        panels[3].set_ylim(8e-7, 6e-3)
        panels[0].set_ylabel(name, fontweight="bold", fontsize=11)
    titles = ("temperature τ", "share of the Gumbel noise", "KL weight β", "learning rate")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
    for panel in axes[:, :3].flat:
        panel.set_ylim(top=max(1.05, panel.get_ylim()[1]))
    for panel in axes[1]:
        panel.set_xlabel("updates")
    axes[1, 3].legend(loc="lower center")
    return figure


def _plot(
    axes: Axes, schedule: Schedule, training: TrainingConfig, colour: str, label: str = ""
) -> None:
    updates = training.num_images // training.batch_size
    places = np.unique(np.geomspace(100, updates, 400).round())
    places = np.union1d(places, np.linspace(1 if updates < 100_000 else 100, updates, 400))
    axes.plot(places, [schedule(x / updates) for x in places], color=colour, label=label)


def draw_merges(num_merges: int = 10) -> Figure:
    """The first merges of the textbook's corpus: pair, count, and what becomes of the words."""
    history = merge_history(_CORPUS, num_merges)
    tokens = MergeTable([]).tokens
    pairs = []
    for merge in history:
        pairs.append((tokens.index(merge.left), tokens.index(merge.right)))
        tokens.append(merge.token)
    figure, axes = new_figure(11, 0.34 * (num_merges + 3))
    panel = axes[0, 0]
    bare(panel)
    panel.set(xlim=(0, 100), ylim=(num_merges + 1.5, -0.7))
    mono = {"family": "DejaVu Sans Mono", "va": "center", "fontsize": 10}
    columns = dict(zip(_CORPUS, (41, 52.5, 67, 84), strict=True))
    for x, title in (
        (0, "merge"),
        (17, "count"),
        *((x, f"{w} ×{_CORPUS[w]}") for w, x in columns.items()),
    ):
        panel.text(x, -0.2, title, va="center", fontweight="bold")
    before: dict[str, list[str]] = {}
    for line in range(num_merges + 1):
        table = MergeTable(pairs[:line])
        y = line + 0.8
        if line:
            merge = history[line - 1]
            panel.text(0, y, f"{line:2}  {spell(merge.left)} + {spell(merge.right)}", **mono)
            panel.barh(y, merge.count * 1.2, left=20, height=0.6, color=GREEN)
            panel.text(19.3, y, str(merge.count), ha="right", **mono)
        for word, x in columns.items():
            parts = [spell(table.tokens[i]) for i in table.encode(f"{word} ".encode())]
            changed = line > 0 and parts != before[word]
            before[word] = parts
            panel.text(x, y, "·".join(parts), color=PIT if changed else INK, **mono)
    return figure
