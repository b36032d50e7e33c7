import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqdm_core.affine import GRIDS, choose_qparams_minmax, fake_quantize
from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.range_search import search_range, search_range_tensor, shrink_factors


def draw(kind, shape, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        "gauss": lambda: rng.normal(size=shape),
        "laplace": lambda: rng.laplace(size=shape),
        "heavy": lambda: rng.standard_t(3, size=shape),
        "skewed": lambda: rng.gamma(1.5, size=shape) - 0.3,
        "uniform": lambda: rng.uniform(-0.3, 0.7, size=shape),
    }[kind]()
    return torch.tensor(values, dtype=torch.float32)


def slow_scores(row, bits, grid, exponent=2.4, candidates=80):
    """(scales, scores) of all candidates of one channel, from the definitions, in float64."""
    row = row.astype(np.float64)
    low, high, top = min(row.min(), 0.0), max(row.max(), 0.0), 2**bits - 1
    factors = 1.0 - 0.01 * np.arange(candidates)
    full = (high - low) / top if grid == "affine" else 2 * max(-low, high) / 2**bits
    scores = []
    for scale in full * factors:
        if grid == "affine":
            zero = np.clip(np.round(-low / full), 0, top)
            restored = (np.clip(np.round(row / scale) + zero, 0, top) - zero) * scale
        else:
            half = 2 ** (bits - 1)
            restored = (np.clip(np.floor(row / scale) + half, 0, top) - half + 0.5) * scale
        scores.append(np.mean(np.abs(row - restored) ** exponent))
    return full * factors, np.array(scores)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_best_candidates_of_a_slow_loop(grid, bits):
    """The scale must be the best one's; where float32 hides the difference, its score must equal the best."""
    for kind, n in [("gauss", 400), ("laplace", 64), ("heavy", 300), ("skewed", 200), ("uniform", 100)]:
        weight = draw(kind, (6, n), seed=bits)
        found = search_range(weight, bits, grid=grid).scale.double().numpy()
        for row, scale in zip(weight.numpy(), found, strict=True):
            scales, scores = slow_scores(row, bits, grid)
            chosen = np.abs(scales / scale - 1).argmin()
            assert scale == pytest.approx(scales[chosen], rel=1e-5)
            assert scores[chosen] <= scores.min() * (1 + 2e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_at_least_999_of_1000_channels_have_the_very_same_scale(grid):
    """Many channels of one shape at 3 bits, all candidates in float64 at once."""
    weight = draw("gauss", (1000, 96), seed=7)
    found = search_range(weight, 3, grid=grid).scale.double()
    values = weight.double()
    full = choose_qparams_minmax(values.amin(1), values.amax(1), 3, grid)
    best, best_scale = torch.full((1000,), torch.inf, dtype=torch.float64), full.scale
    for factor in 1.0 - 0.01 * torch.arange(80, dtype=torch.float64):
        scale = (full.scale * factor).unsqueeze(1)
        steps = values / scale
        nearest = steps.floor() + 0.5 if grid == "mid-rise" else steps.round()
        nearest = nearest.clamp(-full.zero_point.unsqueeze(1), 7 - full.zero_point.unsqueeze(1))
        score = (values - nearest * scale).abs().pow(2.4).mean(1)
        best_scale = torch.where(score < best, scale.squeeze(1), best_scale)
        best = torch.minimum(best, score)
    assert int(((found - best_scale).abs() > 1e-5 * best_scale).sum()) <= 1


def test_a_two_level_channel_by_hand():
    """+-1 on a 1-bit mid-rise grid: the full range gives step 1, levels +-0.5; shrinking only hurts."""
    found = search_range(torch.tensor([[1.0, -1.0, 1.0]]), 1, grid="mid-rise")
    assert (found.scale.item(), found.zero_point.item()) == (1.0, 0.5)


def test_an_outlier_is_clipped_and_values_on_levels_are_not():
    row = torch.cat([draw("gauss", (1, 999)), torch.tensor([[10.0]])], dim=1)
    assert search_range(row, 3).scale.item() < 0.8 * (10.0 - row.min().item()) / 7
    exact = torch.arange(8.0).reshape(1, 8)
    assert search_range(exact, 3).scale.item() == 1.0


@pytest.mark.parametrize("grid", GRIDS)
def test_mixed_bits_equal_one_width_at_a_time(grid):
    weight = draw("laplace", (40, 10, 3, 3), seed=2)
    bits = torch.arange(40) % 8 + 1
    mixed = search_range(weight, bits, grid=grid)
    assert torch.equal(mixed.bits, bits)
    for width in range(1, 9):
        alone = search_range(weight[bits == width], width, grid=grid)
        torch.testing.assert_close(mixed.scale[bits == width], alone.scale)
        assert torch.equal(mixed.zero_point[bits == width], alone.zero_point)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    bits=st.integers(1, 8),
    grid=st.sampled_from(GRIDS),
    exponent=st.sampled_from([2.0, 2.4]),
)
def test_never_worse_than_the_full_range_and_scales_with_the_weight(seed, n, bits, grid, exponent):
    weight = draw("heavy", (3, n), seed=seed)
    found = search_range(weight, bits, grid=grid, exponent=exponent)
    full = choose_qparams_minmax(weight.amin(1), weight.amax(1), bits, grid)

    def score(q):
        return (weight - fake_quantize(weight, q)).abs().double().pow(exponent).mean(1)

    assert bool((score(found) <= score(full) * (1 + 1e-4) + 1e-12).all())
    doubled = search_range(2 * weight, bits, grid=grid, exponent=exponent)
    torch.testing.assert_close(doubled.scale, 2 * found.scale)
    shares = found.scale / full.scale
    assert bool(((shares - shrink_factors().unsqueeze(1)).abs().amin(0) < 1e-5).all())


def test_settings_change_the_result():
    weight = draw("heavy", (50, 200))
    base = search_range(weight, 3)
    assert not torch.equal(base.scale, search_range(weight, 3, exponent=2.0).scale)
    assert not torch.equal(base.scale, search_range(weight, 3, candidates=10).scale)
    assert not torch.equal(base.scale, search_range(weight, 3, grid="mid-rise").scale)
    full = choose_qparams_minmax(weight.amin(1), weight.amax(1), 3)
    assert torch.equal(search_range(weight, 3, candidates=1).scale, full.scale)


def test_rows_equal_whole_tensors():
    values = draw("skewed", (4, 500), seed=5)
    rows = search_range_tensor(values, 8)
    assert rows.scale.shape == (4,)
    for index, row in enumerate(values):
        whole = search_range_tensor(row, 8)
        assert whole.scale.shape == whole.zero_point.shape == whole.bits.shape == ()
        torch.testing.assert_close(whole.scale, rows.scale[index])


def test_long_rows_through_either_table():
    """Rows longer than a block, at 8 bits, where a table of its own pays."""
    values = draw("laplace", (1, 90_000), seed=6)
    scales, scores = slow_scores(values[0].numpy(), 8, "affine")
    scale = search_range_tensor(values[0], 8).scale.item()
    assert scores[np.abs(scales - scale).argmin()] <= scores.min() * (1 + 1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_degenerate_channels_do_not_touch_their_neighbours(grid, bits):
    weight = draw("gauss", (6, 40))
    weight[0], weight[1], weight[2, 3], weight[3, 3] = 0.0, 0.7, torch.nan, -torch.inf
    found = search_range(weight, bits, grid=grid)
    assert found.scale[0].item() == pytest.approx(1e-12)
    assert bool(found.scale[2:4].isnan().all()) and bool(found.zero_point.isfinite().all())
    restored = fake_quantize(weight, found)
    assert float((restored[1] - 0.7).abs().max()) <= (1e-6 if grid == "affine" else float(found.scale[1]) / 2)
    torch.testing.assert_close(found.scale[4:], search_range(weight[4:], bits, grid=grid).scale)


def test_single_values_and_half_precision():
    assert search_range(torch.tensor([[3.0], [-3.0]]), 2).scale.tolist() == [1.0, 1.0]
    weight = draw("gauss", (4, 100)).bfloat16()
    assert torch.equal(search_range(weight, 4).scale, search_range(weight.float(), 4).scale)
    assert search_range(torch.zeros(0, 5), 4).scale.shape == (0,)


def test_no_gradient_is_kept():
    assert not search_range(torch.ones(2, 3, requires_grad=True), 4).scale.requires_grad


def test_bad_input():
    weight = torch.ones(2, 3)
    with pytest.raises(ShapeError, match=r"got shape \(3,\)"):
        search_range(torch.ones(3), 4)
    with pytest.raises(ShapeError, match=r"got shape \(2, 0\)"):
        search_range(torch.ones(2, 0), 4)
    with pytest.raises(ShapeError, match=r"got shape \(1, 2, 3\)"):
        search_range_tensor(torch.ones(1, 2, 3), 4)
    with pytest.raises(SettingsError, match=r"exponent must be in \[1, 4\], got 0.5"):
        search_range(weight, 4, exponent=0.5)
    with pytest.raises(SettingsError, match=r"candidates must be in 1\.\.100, got 0"):
        search_range(weight, 4, candidates=0)
    with pytest.raises(SettingsError, match=r"bits must be in 1\.\.8, got \[9\]"):
        search_range(weight, 9)
    with pytest.raises(SettingsError, match="got 'ternary'"):
        search_range(weight, 4, grid="ternary")
