"""Objectives small enough to train in milliseconds, and an observer that remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.random import torch_generator
from armchair.core.schedules import Schedule
from armchair.diffusion.process import ProcessConfig
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.autoencoders.vqvae import VQVAE, VQVAEConfig
from armchair.models.clip import CLIPConfig, CLIPModel, Gather, alone
from armchair.models.priors.diffusion import DiffusionPrior, DiffusionPriorConfig
from armchair.models.text_stream import TextStreamConfig
from armchair.models.unet import UNet, UNetConfig
from armchair.sampling.diffusion import DiffusionSampling
from armchair.training.loop import TrainingConfig, train
from armchair.training.objective import Batch, Loss, Objective
from armchair.training.objectives.contrastive import ContrastiveLossConfig, ContrastiveObjective
from armchair.training.objectives.diffusion import DiffusionLossConfig, DiffusionObjective
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig, DiscreteVAEObjective
from armchair.training.objectives.prior import (
    DiffusionPriorObjective,
    PriorLossConfig,
    PriorObjective,
)
from armchair.training.objectives.vqvae import VQVAELossConfig, VQVAEObjective
from armchair.training.observers import Kind, Observer
from armchair.training.optim import OptimizerConfig

IDENTITY = {"config": {"name": "toy"}, "version": "0", "commit": None}


class Points:
    """Points of a plane in space."""

    def __len__(self) -> int:
        return 50

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        x = torch.randn(3, generator=torch_generator("point", index))
        return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5])}


class Blots:
    """Pictures of noise, 8x8."""

    def __len__(self) -> int:
        return 30

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        coarse = torch.rand(3, 2, 2, generator=torch_generator("blot", index)) * 2 - 1
        return {"images": coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)}


class Pairs:
    """Blots and texts that name them."""

    def __len__(self) -> int:
        return 30

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        text = torch.tensor([index % 6, index // 6, 6, 6])
        return {"text": text, **Blots().example(index, position)}


class Embedded:
    """Pairs, and unit vectors of both."""

    def __len__(self) -> int:
        return 30

    def example(self, index: int, position: int) -> dict[str, Tensor]:
        image, text = torch.randn(2, 6, generator=torch_generator("embedding", index))
        pair = {"image_embedding": image, "text_embedding": image + 0.5 * text}
        unit = {name: F.normalize(vector, dim=0) for name, vector in pair.items()}
        return {**unit, **Pairs().example(index, position)}


def pairs(count: int, of: Pairs | Embedded | None = None) -> Batch:
    """The first of them as a batch."""
    examples = [(of or Pairs()).example(index, 0) for index in range(count)]
    return {name: torch.stack([e[name] for e in examples]) for name in examples[0]}


class FitPlane(Objective[nn.Module]):
    """Fits points; draws noise from its generator, and more of it in dropout layers."""

    def __init__(self, *, noise: float = 0.1, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        layers = nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        self.model = nn.Sequential(*layers)
        self.noise = noise

    def loss(self, batch: Batch, *, progress: float, generator: torch.Generator) -> Loss:
        x = batch["x"]
        noisy = x + self.noise * torch.randn(x.shape, generator=generator)
        error = (self.model(noisy)[:, 0] - batch["y"]).square().mean()
        return Loss(error, {"progress": torch.tensor(progress)})

    def validate(self, *, progress: float) -> dict[str, float]:
        assert not self.model.training
        return {"first_weight": float(next(self.model.parameters())[0, 0])}

    def preview(self) -> Image.Image:
        return Image.new("RGB", (4, 4))


SHAPE: dict[str, Any] = {
    "image_size": 8,
    "codebook_size": 8,
    "codebook_dim": 4,
    "width": 8,
    "num_groups": 2,
    "blocks_per_group": 1,
}


def validation_images() -> Tensor:
    return torch.stack([Blots().example(100 + index, 0)["images"] for index in range(4)])


def fit_dvae() -> DiscreteVAEObjective:
    """A discrete VAE under noise whose unused codes are restarted."""
    torch.manual_seed(0)
    model = DiscreteVAE(DiscreteVAEConfig(**SHAPE, logits="distance"))
    loss = DiscreteVAELossConfig(
        temperature=Schedule.of(1.0, (1.0, 0.1, "cosine")),
        kl_weight=Schedule.of(0.1),
        commitment_weight=0.1,
        restart_below=0.9,
        restart_until=0.9,
    )
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiscreteVAEObjective(model, loss, validation_images())


def fit_vqvae() -> VQVAEObjective:
    """A VQ-VAE."""
    torch.manual_seed(0)
    return VQVAEObjective(VQVAE(VQVAEConfig(**SHAPE)), VQVAELossConfig(), validation_images())


def fit_clip(
    loss: ContrastiveLossConfig | None = None, gather: Gather = alone
) -> ContrastiveObjective:
    """A CLIP of blots."""
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            image_size=8,
            patch_size=4,
            image_dim=16,
            image_layers=2,
            image_heads=2,
            text_vocab_size=6,
            text_length=4,
            text_dim=16,
            text_layers=1,
            text_heads=2,
            embedding_dim=8,
        )
    )
    seen = pairs(30)
    return ContrastiveObjective(
        model,
        loss or ContrastiveLossConfig(),
        images=seen["images"],
        text=seen["text"],
        gather=gather,
    )


def fit_unet() -> DiffusionObjective:
    """A GLIDE of blots that learns its variance."""
    torch.manual_seed(0)
    model = UNet(
        UNetConfig(
            image_size=8,
            channels=8,
            multipliers=(1, 2),
            num_blocks=1,
            process=ProcessConfig(num_timesteps=20, learned_variance=True),
            attention_sizes=(4,),
            head_dim=4,
            dropout=0.1,
            text=TextStreamConfig(vocab_size=6, text_length=4, dim=16, num_layers=1, num_heads=2),
        )
    )
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampling = DiffusionSampling(num_steps=2, guidance_scale=2.0)
    return DiffusionObjective(model, DiffusionLossConfig(), validation=pairs(4), sampling=sampling)


def fit_prior() -> DiffusionPriorObjective:
    """A diffusion prior that whitens."""
    torch.manual_seed(0)
    validation = pairs(30, Embedded())
    model = DiffusionPrior(
        DiffusionPriorConfig(
            stream=TextStreamConfig(
                vocab_size=6, text_length=4, dim=16, num_layers=2, num_heads=2, dropout=0.1
            ),
            embedding_dim=6,
            process=ProcessConfig(num_timesteps=20, parameterisation="x_0"),
            scaling="whiten",
        )
    )
    model.scale.fit(validation["image_embedding"])
    sampling = DiffusionSampling(num_steps=2)
    return DiffusionPriorObjective(
        model, PriorLossConfig(), validation=validation, sampling=sampling
    )


def config(**changes: Any) -> TrainingConfig:
    """Twenty updates of eight, undisturbed by logs, validations or checkpoints."""
    rate = Schedule.of(0.0, (0.1, 1e-2, "linear"), (1.0, 1e-3, "cosine"))
    optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.01, average_decay=0.9)
    never = {"log_every": 10**6, "validate_every": 10**6, "checkpoint_every": 10**6}
    run = {"num_images": 160, "batch_size": 8, "precision": "fp32", "num_workers": 0}
    return TrainingConfig(**{"optimizer": optimizer, **run, **never, **changes})


class Recorder(Observer):
    """Remembers what it is told; `at` is called at the end of an update, by the pictures seen."""

    def __init__(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.at = at or {}
        self.starts: list[tuple[int, int]] = []
        self.advanced: list[int] = []
        self.rows: list[tuple[Kind, int, dict[str, float]]] = []
        self.previews: list[int] = []
        self.messages: list[str] = []
        self.stops = 0

    def start(self, images_seen: int, num_images: int) -> None:
        self.starts.append((images_seen, num_images))

    def advance(self, images_seen: int) -> None:
        self.advanced.append(images_seen)
        self.at.get(images_seen, lambda: None)()

    def metrics(self, kind: Kind, images_seen: int, values: dict[str, float]) -> None:
        self.rows.append((kind, images_seen, values))

    def preview(self, images_seen: int, picture: Image.Image) -> None:
        self.previews.append(images_seen)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def stop(self) -> None:
        self.stops += 1

    def logged(self, kind: Kind, name: str) -> dict[int, float]:
        """A number's values by the pictures seen."""
        return {seen: row[name] for of, seen, row in self.rows if of == kind and name in row}


def go(
    objective: Objective[Any],
    folder: Path,
    training: TrainingConfig | None = None,
    observer: Observer | None = None,
) -> Recorder:
    """Train on the data that the objective is for."""
    recorder = observer or Recorder()
    kinds = {
        FitPlane: Points,
        ContrastiveObjective: Pairs,
        DiffusionObjective: Pairs,
        PriorObjective: Embedded,
        Objective: Blots,
    }
    examples = next(data for kind, data in kinds.items() if isinstance(objective, kind))()
    train(
        objective,
        examples,
        training or config(),
        folder,
        identity=IDENTITY,
        observer=recorder,
    )
    return recorder  # type: ignore[return-value]
