from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.grids import grid_of
from mpqdm_core.weights import fit_weight, prescaled_weight, round_weight

MIXED = {1: "mid-rise", 2: "mid-rise"}


def weight(channels=6, inputs=12, seed=0):
    return torch.randn(channels, inputs, generator=torch.Generator().manual_seed(seed))


def fitted(w, bits, grid="affine"):
    return fit_weight(w, torch.as_tensor(bits), grid=grid, exponent=2.4)


def test_a_channel_depends_on_its_own_weights_and_bits_alone():  # so g = 0 is uniform, bit for bit
    w = weight()
    for grid in ("affine", "mid-rise"):
        uniform = fitted(w, [3] * 6, grid)
        swapped = fitted(w, [4, 3, 3, 2, 3, 3], grid)
        kept = [1, 2, 4, 5]
        assert torch.equal(uniform.scale[kept], swapped.scale[kept])
        assert torch.equal(round_weight(w, uniform)[kept], round_weight(w, swapped)[kept])
        assert not torch.equal(round_weight(w, uniform)[0], round_weight(w, swapped)[0])


def test_mixed_grids_are_each_grid_alone():
    w, bits = weight(), [1, 2, 3, 4, 2, 8]
    both = round_weight(w, fitted(w, bits, MIXED))
    mid_rise, affine = (round_weight(w, fitted(w, bits, grid)) for grid in ("mid-rise", "affine"))
    assert torch.equal(both[[0, 1, 4]], mid_rise[[0, 1, 4]])
    assert torch.equal(both[[2, 3, 5]], affine[[2, 3, 5]])


def test_levels_against_numpy():
    w, bits = weight(), [1, 2, 3, 4, 5, 8]
    params = fitted(w, bits, MIXED)
    expected = np.empty(w.shape)
    for o, b in enumerate(bits):
        x, s = w[o].double().numpy(), float(params.scale[o])
        if b in MIXED:
            codes = np.clip(np.floor(x / s) + 2 ** (b - 1), 0, 2**b - 1)
            expected[o] = (codes - 2 ** (b - 1) + 0.5) * s
        else:
            z = float(params.zero_point[o])
            assert z == round(z)
            expected[o] = (np.clip(np.round(x / s) + z, 0, 2**b - 1) - z) * s
    np.testing.assert_allclose(round_weight(w, params).numpy(), expected, rtol=1e-6, atol=1e-7)
    for o, b in enumerate(bits):
        assert len(np.unique(expected[o])) <= 2**b


def test_gradients_pass_straight_through_both_grids():
    w = (weight(2) * 0.1).requires_grad_(True)
    round_weight(w, fitted(w, [2, 4], MIXED)).sum().backward()
    assert w.grad.unique().tolist() in ([1.0], [0.0, 1.0])
    assert w.grad[1].sum() > 0


@pytest.mark.parametrize("groups", [1, 2])
def test_prescaling_leaves_the_full_precision_output(groups):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 5, generator=generator)
    w = torch.randn(6, 4 // groups, 3, 3, generator=generator)
    delta = torch.tensor([0.1, 1.0, 3.0, 20.0])
    plain = functional.conv2d(x, w, groups=groups)
    scaled = functional.conv2d(x * delta[:, None, None], prescaled_weight(w, delta, groups), groups=groups)
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-5)


def test_dead_constant_and_broken_channels_leave_the_others_alone():
    w = weight(4)
    w[0] = 0.0
    w[1] = 0.7
    w[2, 3] = float("nan")
    for grid in ("affine", "mid-rise"):
        got = round_weight(w, fitted(w, [4, 4, 4, 4], grid))
        torch.testing.assert_close(got[0], torch.zeros(12), atol=1e-9, rtol=0)
        assert torch.isfinite(got[1]).all()
        assert (got[1] - 0.7).abs().max() < 0.7 / 15  # within a step of a 4-bit range that holds 0 and 0.7
        assert torch.isnan(got[2]).any()
        alone = w[3:]
        assert torch.equal(got[3:], round_weight(alone, fitted(alone, [4], grid)))


def test_what_is_refused():
    with pytest.raises(SettingsError, match="grid must be one of affine, mid-rise; got 'log'"):
        grid_of("log", 4)
    assert grid_of(MIXED, 2) == "mid-rise"
    assert grid_of(MIXED, 3) == "affine"
    with pytest.raises(ShapeError, match=r"expected 12 prescale factors, got shape \(3,\)"):
        prescaled_weight(weight(), torch.ones(3))
    with pytest.raises(SettingsError, match=r"bits must be in 1\.\.8, got \[3, 9\]"):
        fitted(weight(2), [3, 9])
