from __future__ import annotations

import pytest
import torch
from torch import nn

from mpqdm_core.errors import SettingsError
from mpqdm_core.patches import input_patches


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2, bias=False),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2, bias=False),
        nn.Conv2d(4, 6, 2, stride=(1, 2), padding="valid", bias=False),
    ],
)
def test_patches_times_weight_is_the_convolution(layer):
    x = torch.randn(2, 4, 7, 6)
    with torch.no_grad():
        expected = layer(x)
        (patches,) = input_patches(layer, (x,), 10**6, torch.Generator())
        weight = layer.weight.flatten(1).reshape(layer.groups, -1, layer.weight[0].numel())
        got = torch.bmm(patches, weight.transpose(1, 2))  # (g, B * positions, O/g)
    image = got.permute(0, 2, 1).reshape(6, 2, *expected.shape[2:]).transpose(0, 1)
    torch.testing.assert_close(image, expected)


def test_a_sample_of_positions_is_the_same_in_both_tensors_and_within_all():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    x = torch.randn(2, 4, 5, 5)
    some, doubled = input_patches(layer, (x, 2 * x), 7, torch.Generator().manual_seed(0))
    (everything,) = input_patches(layer, (x,), 25, torch.Generator())
    assert some.shape == (1, 2 * 7, 36)
    assert torch.equal(doubled, 2 * some)
    known = {tuple(row.tolist()) for row in everything[0]}
    assert all(tuple(row.tolist()) in known for row in some[0])


@pytest.mark.parametrize(("shape", "rows"), [((3, 4), 3), ((3, 9, 4), 3 * 5), ((3, 2, 2, 4), 3 * 4)])
def test_tokens_of_a_linear_layer(shape, rows):
    x = torch.randn(shape)
    (patches,) = input_patches(nn.Linear(4, 2), (x,), 5, torch.Generator())
    assert patches.shape == (1, rows, 4)


def test_other_layers_are_refused():
    with pytest.raises(SettingsError, match="reflect"):
        input_patches(
            nn.Conv2d(1, 1, 3, padding_mode="reflect"), (torch.zeros(1, 1, 3, 3),), 1, torch.Generator()
        )
