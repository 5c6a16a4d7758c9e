import numpy as np
import pytest
import torch
from PIL import Image

from armchair.nn.resampling import resize


@pytest.mark.parametrize("size", [5, 8, 16, 64])
def test_it_is_pillows_bicubic(size):
    """Which widens its filter where a picture shrinks."""
    plane = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = Image.fromarray(plane.numpy())
    expected = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)).clip(-1, 1)
    found = resize(plane[None, None], size)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_fine_stripes_shrink_to_grey():
    """Without a wide filter they would alias into stripes."""
    stripes = torch.ones(1, 1, 32, 32)
    stripes[..., ::2] = -1
    assert resize(stripes, 8).abs().max() < 0.1


def test_it_stays_within_the_range_of_pictures():
    edge = torch.ones(1, 3, 8, 8)
    edge[..., :4] = -1
    enlarged = resize(edge, 32)
    assert enlarged.max() == 1
    assert enlarged.min() == -1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resize(edge.bfloat16(), 32), enlarged)
