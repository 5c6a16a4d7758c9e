from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from armchair.nn.skeletons import skeletons


def test_modules_have_shapes_alone_and_take_what_was_saved():
    def build():
        return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))

    saved = build().state_dict()
    with skeletons():
        model = build()
        nn.init.trunc_normal_(model[1].weight, std=0.02)
        assert nn.init.zeros_(tensor=model[1].bias) is model[1].bias
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    model.load_state_dict(saved, assign=True)
    assert all(torch.equal(found, saved[name]) for name, found in model.state_dict().items())
    nn.init.ones_(model[1].weight)  # outside again
    assert model[1].weight.min() == 1


@pytest.mark.parametrize("name", ["clip-scenes", "dalle1-scenes", "dalle2-scenes"])
def test_no_model_that_ships_needs_torchs_compiler_to_load(name):
    program = (
        f"import armchair, sys; armchair.load_clip({name!r}) if 'clip' in {name!r} "
        f"else armchair.load({name!r}); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
