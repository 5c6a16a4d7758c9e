from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.models.autoencoders.dvae import DiscreteVAE, DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.training.optim import (
    IterateAverage,
    OptimizerConfig,
    build_optimizers,
    decayed_parameters,
    hidden_matrices,
)

CONSTANT = Schedule.of(0.1)


def test_decay_is_for_matrices_and_kernels_alone() -> None:
    """AdamW with decay on everything gave brown images in a rival."""
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(4, 3),
            "kernel": nn.Conv2d(3, 3, 1),
            "norm": nn.LayerNorm(3),
            "matrix": nn.Linear(3, 3),
        }
    )
    assert decayed_parameters(model) == {"kernel.weight", "matrix.weight"}
    assert decayed_parameters(nn.Embedding(4, 3)) == set()


def test_decay_in_the_models_of_the_project() -> None:
    shape: dict[str, Any] = {"image_size": 8, "codebook_size": 4, "width": 4, "num_groups": 2}
    dvae = DiscreteVAE(DiscreteVAEConfig(**shape, logits="distance"))
    transformer = TextToImageTransformer(
        TextToImageConfig(
            text_vocab_size=8,
            text_length=4,
            image_vocab_size=4,
            grid_size=2,
            dim=8,
            num_layers=2,
            num_heads=2,
            attention="full",
        )
    )
    for model in (dvae, transformer):
        decayed = decayed_parameters(model)
        free = {name for name, _ in model.named_parameters()} - decayed
        assert all(name.endswith("weight") for name in decayed)
        assert not any("embedding" in name or "codebook" in name for name in decayed)
        assert not any("norm" in name for name in decayed)
        spared = ("bias", "norm", "embedding", "codebook", "log_precision")
        assert all(any(word in name for word in spared) for name in free), free


def test_decay_moves_only_what_it_is_for() -> None:
    model = nn.Linear(2, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    (optimizer,) = build_optimizers(
        model, OptimizerConfig(learning_rate=CONSTANT, weight_decay=0.5)
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before["bias"])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_parameter_is_in_one_group(kind: Literal["adamw", "muon"]) -> None:
    config = OptimizerConfig(learning_rate=CONSTANT, hidden_matrices=kind)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])})
    optimizers = build_optimizers(model, config)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    (alone,) = build_optimizers(nn.LayerNorm(2), config)
    assert len(alone.param_groups) == 1  # none is decayed


def test_muon_is_for_the_matrices_of_stacked_layers() -> None:
    transformer = TextToImageTransformer(
        TextToImageConfig(
            text_vocab_size=8,
            text_length=4,
            image_vocab_size=4,
            grid_size=2,
            dim=8,
            num_layers=1,
            num_heads=2,
        )
    )
    assert hidden_matrices(transformer) == {
        "blocks.0.attention.qkv.weight",
        "blocks.0.attention.projection.weight",
        "blocks.0.mlp.hidden.weight",
        "blocks.0.mlp.projection.weight",
    }


def test_muon_is_for_the_kernels_of_groups_of_blocks() -> None:
    shape: dict[str, Any] = {"image_size": 8, "codebook_size": 4, "width": 4, "num_groups": 2}
    dvae = DiscreteVAE(DiscreteVAEConfig(**shape))
    moved = hidden_matrices(dvae)
    assert moved == {
        name
        for name, parameter in dvae.named_parameters()
        if ".groups." in name and parameter.ndim == 4
    }
    assert "encoder.input.weight" not in moved


def test_a_step_of_muon_is_orthogonal_and_as_large_as_one_of_adamw() -> None:
    """All singular values near 1, times 0.2 sqrt(longer side): elements of about 0.2."""
    model = nn.ModuleList([nn.Linear(32, 64, bias=False)])
    config = OptimizerConfig(learning_rate=CONSTANT, hidden_matrices="muon")
    (optimizer,) = build_optimizers(model, config)
    (parameter,) = model.parameters()
    before = parameter.detach().clone()
    parameter.grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    step = (before - parameter.detach()) / CONSTANT(0.0)
    singular = torch.linalg.svdvals(step) / (0.2 * 64**0.5)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    assert 0.15 < step.square().mean().sqrt() < 0.25


class Walk(nn.Module):
    """One parameter and two buffers that are set by hand."""

    weight: Tensor
    running: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def go_to(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.running.fill_(value)
            self.count.fill_(int(value))


def test_the_average_in_closed_form() -> None:
    """a ← d a + (1-d) θ with d = min(decay, (1+n)/(10+n))."""
    model = Walk()
    average = IterateAverage(model, decay=0.3)
    expected, visited = 0.0, [1.0, 5.0, 2.0, 7.0, 3.0]
    for n, value in enumerate(visited):
        model.go_to(value)
        average.update(model)
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert average.contributions == 5
    torch.testing.assert_close(average.state["weight"], torch.full((2,), expected))
    assert average.state["running"].tolist() == [3.0, 3.0]  # buffers are copied
    assert average.state["count"] == 3


def test_a_steady_model_is_its_own_average() -> None:
    model = Walk()
    model.go_to(4.0)
    average = IterateAverage(model, decay=0.999)
    for _ in range(20):
        average.update(model)
    torch.testing.assert_close(average.state["weight"], model.weight.detach())


def test_no_decay_keeps_the_newest() -> None:
    model = Walk()
    average = IterateAverage(model, decay=0.0)
    model.go_to(4.0)
    assert average.state["weight"].tolist() == [0.0, 0.0]  # a copy
    average.update(model)
    assert torch.equal(average.state["weight"], model.weight)


def test_a_saved_average_goes_on() -> None:
    model = Walk()
    first = IterateAverage(model, decay=0.9)
    model.go_to(1.0)
    first.update(model)
    second = IterateAverage(model, decay=0.9)
    second.load(first.state, first.contributions)
    model.go_to(2.0)
    for average in (first, second):
        average.update(model)
    assert torch.equal(first.state["weight"], second.state["weight"])


@pytest.mark.parametrize(
    "change",
    [
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"clip_norm": 0.0},
        {"weight_decay": -1.0},
        {"average_decay": 1.0},
        {"average_every": 0},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: got"):
        OptimizerConfig(learning_rate=CONSTANT, **change)
