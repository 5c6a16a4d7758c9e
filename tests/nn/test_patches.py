import torch
from torch import nn
from torch.nn import functional as F

from armchair.nn.patches import patch_layers


def pictures():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_linear_patches_are_one_matrix_for_all_pixels_of_a_patch():
    layers, x = patch_layers("linear", 4, 6), pictures()
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)  # B 4 4 P
    expected = patches @ layers.weight.flatten(1).mT
    torch.testing.assert_close(layers(x), expected.permute(0, 3, 1, 2))


def test_convolutions_halve_the_side_and_double_the_width():
    layers, x = patch_layers("convolutions", 8, 16), pictures()
    kernels = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Conv2d)]
    assert kernels == [(4, 3, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3), (16, 16, 1, 1)]
    weights = list(layers.parameters())
    for kernel, scale, shift in zip(weights[:9:3], weights[1:9:3], weights[2:9:3], strict=True):
        x = F.conv2d(x, kernel, stride=2, padding=1)
        groups = {4: 1, 8: 2, 16: 4}[len(kernel)]
        x = F.gelu(F.group_norm(x, groups, scale, shift))
    torch.testing.assert_close(layers(pictures()), F.conv2d(x, weights[9]))
