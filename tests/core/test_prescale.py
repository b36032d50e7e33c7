import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.prescale import input_channel_absmax, prescale_factors


def test_factors_by_hand():  # sqrt(max|W| / max|X|): sqrt(4 / 1), sqrt(1 / 4)
    assert prescale_factors(torch.tensor([4.0, 1.0]), torch.tensor([1.0, 4.0])).tolist() == [2.0, 0.5]


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 8.0), (1.0, 0.5), (0.25, 8**0.75 / 2**0.25)])
def test_alpha_moves_the_difficulty(alpha, expected):
    found = prescale_factors(torch.tensor([8.0]), torch.tensor([2.0]), alpha=alpha)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_both_maxima_become_alike():
    weight, inputs = torch.tensor([3.0, 0.2]), torch.tensor([0.5, 7.0])
    delta = prescale_factors(weight, inputs)
    torch.testing.assert_close(weight / delta, inputs * delta)


def test_dead_channels_are_left_alone():
    nan, inf = torch.nan, torch.inf
    weight = torch.tensor([0.0, 1.0, 1e-6, nan, 1.0, inf, 1.0, 4.0])
    inputs = torch.tensor([1.0, 0.0, 1.0, 1.0, nan, 1.0, inf, 1.0])
    assert prescale_factors(weight, inputs).tolist() == [1.0] * 7 + [2.0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), alpha=st.floats(0, 1), spread=st.floats(0, 3), dead=st.booleans())
def test_the_output_of_a_convolution_stays(seed, alpha, spread, dead):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((6, 5, 3, 3), generator=generator)
    x = torch.randn((2, 5, 6, 6), generator=generator) * torch.logspace(-spread, spread, 5).view(1, -1, 1, 1)
    if dead:
        x[:, 2] = 0.0
    delta = prescale_factors(input_channel_absmax(weight), x.abs().amax(dim=(0, 2, 3)), alpha=alpha)
    assert bool((delta > 0).all()) and bool(delta.isfinite().all())
    before = functional.conv2d(x, weight)
    after = functional.conv2d(x * delta.view(1, -1, 1, 1), weight / delta.view(1, -1, 1, 1))
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5


def test_absmax_by_hand():
    weight = torch.tensor([[1.0, -5.0, 0.0], [-2.0, 3.0, 0.5]])
    assert input_channel_absmax(weight).tolist() == [2.0, 5.0, 0.5]
    assert input_channel_absmax(weight.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_absmax_of_a_grouped_convolution_equals_a_probe(groups):
    """Oracle: an input channel's largest weight is the largest output its unit impulse can cause."""
    generator = torch.Generator().manual_seed(4)
    inputs = 8
    weight = torch.randn((12, inputs // groups, 3, 3), generator=generator)
    found = input_channel_absmax(weight, groups=groups)
    assert found.shape == (inputs,)
    for channel in range(inputs):
        impulse = torch.zeros(1, inputs, 5, 5)
        impulse[0, channel, 2, 2] = 1.0
        response = functional.conv2d(impulse, weight, groups=groups)
        assert found[channel].item() == pytest.approx(response.abs().max().item())


def test_bad_input():
    one = torch.ones(2)
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(3,\)"):
        prescale_factors(one, torch.ones(3))
    with pytest.raises(SettingsError, match=r"\[0, 1\], got 1.5"):
        prescale_factors(one, one, alpha=1.5)
    with pytest.raises(SettingsError, match="above 0, got 0"):
        prescale_factors(one, one, eps=0.0)
    with pytest.raises(ShapeError, match=r"got shape \(3,\)"):
        input_channel_absmax(torch.ones(3))
    with pytest.raises(ShapeError, match="5 output channels cannot be split into 2 groups"):
        input_channel_absmax(torch.ones(5, 2), groups=2)
