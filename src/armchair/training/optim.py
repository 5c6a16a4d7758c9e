"""AdamW with decay only where it belongs, Muon for hidden matrices, and the average of iterates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters move.

    Attributes:
        learning_rate: Step size as a function of progress.
        betas: Decays of AdamW's first and second moment.
        epsilon: Added to the root of the second moment.
        weight_decay: Decoupled decay of matrices and kernels; norms, biases and embeddings have
            none.
        clip_norm: Largest norm of the whole gradient; None for any.
        average_decay: Decay of the moving average of the parameters; 0 for none.
        average_every: Updates between two contributions to that average.
        hidden_matrices: What moves the matrices and kernels of stacked layers: "adamw" like the
            rest, or "muon" (see `armchair.training.muon`), with the same learning rate and decay.
    """

    learning_rate: Schedule
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    average_decay: float = 0.999
    average_every: int = 1
    hidden_matrices: Literal["adamw", "muon"] = "adamw"

    def __post_init__(self) -> None:
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise ConfigError("betas", got=self.betas, expected="each in [0, 1)")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError("clip_norm", got=self.clip_norm, expected="above 0")
        if self.weight_decay < 0:
            raise ConfigError("weight_decay", got=self.weight_decay, expected="at least 0")
        if not 0 <= self.average_decay < 1:
            raise ConfigError("average_decay", got=self.average_decay, expected="in [0, 1)")
        if self.average_every < 1:
            raise ConfigError("average_every", got=self.average_every, expected="at least 1")


def decayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to: matrices and kernels of layers.

    Biases, gains of norms, and embeddings (a table of which each row is rarely used) are left out.
    """
    embeddings = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    }
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and name not in embeddings
    }


def hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the matrices and kernels of a model's stacked layers: inside an `nn.ModuleList`."""
    stacked = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.ModuleList)
        for parameter in module.parameters()
    }
    decayed = decayed_parameters(model)
    return {
        name
        for name, parameter in model.named_parameters()
        if name in decayed and id(parameter) in stacked
    }


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Optimizers that share out the parameters: AdamW, after Muon where it is asked for.

    AdamW has two groups: decayed and not.
    """
    learning_rate = config.learning_rate(0.0)
    optimizers: list[torch.optim.Optimizer] = []
    by_muon = hidden_matrices(model) if config.hidden_matrices == "muon" else set[str]()
    if by_muon:
        optimizers.append(
            Muon(
                [p for n, p in model.named_parameters() if n in by_muon],
                lr=learning_rate,
                weight_decay=config.weight_decay,
            )
        )
    decayed = decayed_parameters(model)
    named = [(n, p) for n, p in model.named_parameters() if n not in by_muon]
    groups = [
        {"params": [p for n, p in named if n in decayed], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        optimizers.append(
            torch.optim.AdamW(
                groups, lr=learning_rate, betas=config.betas, eps=config.epsilon, fused=True
            )
        )
    return optimizers


class IterateAverage:
    """The exponential moving average of a model's parameters, which is what samples and ships.

    Early on the decay grows as (1 + n) / (10 + n), so that the start does not linger. Buffers are
    copied, not averaged.

    Args:
        model: The model to follow.
        decay: The decay that the average settles to; 0 keeps the newest parameters.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.contributions = 0
        self.state = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average toward the model's parameters."""
        decay = min(self.decay, (1 + self.contributions) / (10 + self.contributions))
        self.contributions += 1
        averaged, current = [], []
        parameters = {name for name, _ in model.named_parameters()}
        for name, tensor in model.state_dict().items():
            if name in parameters and tensor.is_floating_point():
                averaged.append(self.state[name])
                current.append(tensor.detach())
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(averaged, current, 1 - decay)  # type: ignore[attr-defined]

    def load(self, state: dict[str, Tensor], contributions: int) -> None:
        """Go on from a saved average."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
        self.contributions = contributions
