import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqdm_core.affine import (
    GRIDS,
    QParams,
    as_bits,
    choose_qparams_minmax,
    dequantize,
    fake_quantize,
    quantize,
)
from mpqdm_core.errors import SettingsError, ShapeError


def slow_levels(x, scale, zero_point, bits, grid):
    """One value at a time, from the definitions."""
    top = 2**bits - 1
    if grid == "affine":
        code = min(max(round(x / scale) + zero_point, 0), top)  # Python rounds halves to even as torch does
        return code, (code - zero_point) * scale
    code = min(max(np.floor(x / scale) + 2 ** (bits - 1), 0), top)
    return code, (code - 2 ** (bits - 1) + 0.5) * scale


def params(scale, zero_point, bits, grid="affine", dtype=torch.float64):
    return QParams(
        scale=torch.as_tensor(scale, dtype=dtype),
        zero_point=torch.as_tensor(zero_point, dtype=dtype),
        bits=torch.as_tensor(bits),
        grid=grid,
    )


def test_affine_by_hand():  # s = 0.5, z = 1, 2 bits: levels -0.5, 0, 0.5, 1
    q = params(0.5, 1.0, 2)
    x = torch.tensor([-9.0, -0.5, 0.2, 0.3, 0.9, 9.0], dtype=torch.float64)
    assert quantize(x, q).tolist() == [0, 0, 1, 2, 3, 3]
    assert fake_quantize(x, q).tolist() == [-0.5, -0.5, 0.0, 0.5, 1.0, 1.0]


def test_one_bit_mid_rise_is_sign_coding():
    q = choose_qparams_minmax(torch.tensor(-2.0), torch.tensor(1.0), 1, "mid-rise")
    assert fake_quantize(torch.tensor([-2.0, -0.1, 0.1, 1.0]), q).tolist() == [-1.0, -1.0, 1.0, 1.0]


def test_two_bit_mid_rise_has_levels_at_half_steps():
    q = choose_qparams_minmax(torch.tensor(-2.0), torch.tensor(2.0), 2, "mid-rise")
    assert fake_quantize(torch.tensor([-2.0, -0.4, 0.4, 2.0]), q).tolist() == [-1.5, -0.5, 0.5, 1.5]


@pytest.mark.parametrize("grid", GRIDS)
def test_mixed_bits_equal_a_slow_loop(grid):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn((8, 3, 2, 2), generator=generator, dtype=torch.float64)
    bits = torch.arange(1, 9)
    rows = weight.flatten(1)
    q = choose_qparams_minmax(0.7 * rows.amin(1), 0.7 * rows.amax(1), bits, grid)
    codes, values = quantize(weight, q), fake_quantize(weight, q)
    for channel in range(8):
        for x, code, value in zip(
            rows[channel].tolist(), codes[channel].flatten(), values[channel].flatten(), strict=True
        ):
            expected = slow_levels(
                x, q.scale[channel].item(), q.zero_point[channel].item(), channel + 1, grid
            )
            assert (code.item(), value.item()) == (expected[0], pytest.approx(expected[1], abs=1e-14))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bits=st.lists(st.integers(1, 8), min_size=5, max_size=5),
    grid=st.sampled_from(GRIDS),
    offset=st.floats(-3, 3),
)
def test_properties_of_the_full_range(seed, bits, grid, offset):
    x = torch.randn((5, 17), generator=torch.Generator().manual_seed(seed)) + offset
    bits = torch.tensor(bits)
    q = choose_qparams_minmax(x.amin(1), x.amax(1), bits, grid)
    codes, values = quantize(x, q), fake_quantize(x, q)
    assert bool((codes <= 2 ** bits[:, None] - 1).all())
    torch.testing.assert_close(dequantize(codes, q), values, rtol=0, atol=0)  # the same arithmetic
    torch.testing.assert_close(fake_quantize(values, q), values)  # quantizing twice changes nothing
    # Half a step inside the levels; rounding the zero point moves them by up to another half.
    reach = 1.0 if grid == "affine" else 0.5
    assert bool(((x - values).abs() <= (reach + 1e-3) * q.scale[:, None]).all())


def test_uniform_bits_equal_one_number():
    x = torch.randn((6, 9), generator=torch.Generator().manual_seed(2))
    one = choose_qparams_minmax(x.amin(1), x.amax(1), 3)
    each = choose_qparams_minmax(x.amin(1), x.amax(1), torch.full((6,), 3))
    assert torch.equal(fake_quantize(x, one), fake_quantize(x, each))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_are_finite_differences_with_rounding_and_clipping_frozen(grid, per_channel):
    """Oracle in numpy: x/s plus a frozen residual stands for the level; which values clip is frozen too."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 25)) * 2
    scale = np.array([0.3, 0.5, 0.2, 0.7]) if per_channel else np.array(0.4)
    zero = np.array([3.0, 1.0, 6.0, 2.0]) if per_channel else np.array(3.0)
    bits = torch.tensor([3, 2, 4, 1]) if per_channel else torch.tensor(3)
    top = 2.0 ** bits.numpy() - 1
    if grid == "mid-rise":
        zero = 2.0 ** (bits.numpy() - 1) - 0.5
    column = (slice(None), None) if per_channel else ...
    ratio = x / scale[column]
    level = np.floor(ratio) + 0.5 if grid == "mid-rise" else np.round(ratio)
    residual = level - ratio
    below, above = level < -zero[column], level > (top - zero)[column]
    weights = rng.normal(size=x.shape)

    def surrogate(x_, scale_, zero_):
        low, high = -zero_[column], top[column] - zero_[column]
        steps = np.where(below, low, np.where(above, high, x_ / scale_[column] + residual))
        return weights * steps * scale_[column]

    torch_x = torch.tensor(x, requires_grad=True)
    torch_scale = torch.tensor(scale, requires_grad=True)
    torch_zero = torch.tensor(zero, requires_grad=grid == "affine")
    q = QParams(scale=torch_scale, zero_point=torch_zero, bits=bits, grid=grid)
    (fake_quantize(torch_x, q) * torch.tensor(weights)).sum().backward()

    step = 1e-6

    def slope(move):
        difference = (move(step) - move(-step)) / (2 * step)
        return difference.sum(axis=1) if per_channel else difference.sum()

    np.testing.assert_allclose(
        torch_x.grad,
        (surrogate(x + step, scale, zero) - surrogate(x - step, scale, zero)) / (2 * step),
        atol=1e-8,
    )
    expected = slope(lambda h: surrogate(x, scale + h, zero))
    np.testing.assert_allclose(torch_scale.grad, expected, rtol=1e-6, atol=1e-6)
    if grid == "affine":
        expected = slope(lambda h: surrogate(x, scale, zero + h))
        np.testing.assert_allclose(torch_zero.grad, expected, rtol=1e-6, atol=1e-6)


def test_gradients_by_hand():  # s = 1, z = 1, 2 bits: levels -1, 0, 1, 2
    scale = torch.tensor(1.0, requires_grad=True)
    zero = torch.tensor(1.0, requires_grad=True)
    q = QParams(scale=scale, zero_point=zero, bits=torch.tensor(2))
    for x, d_scale, d_zero, d_x in [(0.75, 0.25, 0.0, 1.0), (5.0, 2.0, -1.0, 0.0), (-5.0, -1.0, -1.0, 0.0)]:
        scale.grad = zero.grad = None
        value = torch.tensor(x, requires_grad=True)
        fake_quantize(value, q).backward()
        assert (scale.grad.item(), zero.grad.item(), value.grad.item()) == (d_scale, d_zero, d_x)


def test_a_trained_zero_point_is_rounded_when_stored():
    q = params(0.5, 1.3, 2)
    x = torch.tensor([0.0], dtype=torch.float64)
    assert quantize(x, q).tolist() == [1]
    assert dequantize(quantize(x, q), q).tolist() == [0.0]


def test_half_precision_keeps_its_dtype():
    q = choose_qparams_minmax(torch.tensor(-1.0), torch.tensor(1.0), 4)
    assert fake_quantize(torch.ones(3, dtype=torch.bfloat16), q).dtype == torch.bfloat16


@pytest.mark.parametrize("grid", GRIDS)
def test_degenerate_channels(grid):
    nan, inf = torch.nan, torch.inf
    x = torch.tensor([[0.0, 0.0], [2.0, 2.0], [nan, 1.0], [-inf, 1.0]])
    q = choose_qparams_minmax(x.amin(1), x.amax(1), 4, grid)
    values = fake_quantize(x, q)
    assert float(values[0].abs().max()) <= 1e-12
    assert bool(((values[1] - 2.0).abs() <= q.scale[1]).all())
    assert q.scale[:2].isfinite().all() and q.scale[2:].isnan().all()
    assert q.zero_point.isfinite().all()
    quantize(x, q)  # codes exist even where values do not


def test_a_constant_channel_is_exact_on_the_affine_grid():
    q = choose_qparams_minmax(torch.tensor([3.0, -3.0]), torch.tensor([3.0, -3.0]), 2)
    torch.testing.assert_close(fake_quantize(torch.tensor([[3.0], [-3.0]]), q), torch.tensor([[3.0], [-3.0]]))


def test_qparams_move_together():
    q = choose_qparams_minmax(torch.zeros(2), torch.ones(2), 4).to(torch.float64)
    assert (q.scale.dtype, q.zero_point.dtype, q.bits.dtype) == (torch.float64, torch.float64, torch.int64)


@pytest.mark.parametrize("bits", [0, 9, torch.tensor([4, 12])])
def test_bits_outside_the_range(bits):
    with pytest.raises(SettingsError, match=r"bits must be in 1\.\.8, got \[.*(0|9|12)"):
        choose_qparams_minmax(torch.zeros(2), torch.ones(2), bits)


def test_bits_of_the_wrong_kind_or_shape():
    with pytest.raises(SettingsError, match="integers"):
        as_bits(torch.tensor([2.5]), torch.Size([1]), torch.device("cpu"))
    with pytest.raises(ShapeError, match=r"\(2,\), got \(3,\)"):
        as_bits(torch.tensor([1, 2, 3]), torch.Size([2]), torch.device("cpu"))


def test_other_bad_input():
    with pytest.raises(SettingsError, match="affine, mid-rise; got 'ternary'"):
        choose_qparams_minmax(torch.zeros(2), torch.ones(2), 4, "ternary")
    with pytest.raises(SettingsError, match="above x_max"):
        choose_qparams_minmax(torch.ones(2), torch.zeros(2), 4)
    with pytest.raises(ShapeError, match=r"\(2,\) but x_max is \(3,\)"):
        choose_qparams_minmax(torch.zeros(2), torch.ones(3), 4)
    with pytest.raises(ShapeError, match="one shape"):
        params([1.0, 1.0], 0.0, 4)
    with pytest.raises(ShapeError, match="2 scales do not fit 3 channels"):
        quantize(torch.zeros(3, 4), params([1.0, 1.0], [0.0, 0.0], [4, 4]))
    with pytest.raises(ShapeError, match=r"\(1, 1\) does not fit x of shape \(3,\)"):
        quantize(torch.zeros(3), params([[1.0]], [[0.0]], [[4]]))
