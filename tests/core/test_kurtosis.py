import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqdm_core.errors import ShapeError
from mpqdm_core.kurtosis import channel_kurtosis, channel_statistics

FLOAT32_TOLERANCE = 2e-6  # stated by channel_kurtosis


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def expected_kurtosis(weight):
    rows = weight.detach().double().reshape(weight.shape[0], -1).numpy()
    return scipy.stats.kurtosis(rows, axis=1, fisher=False)


def test_two_point_channel_scores_exactly_one():  # every entry is +-1, so m4 == m2**2
    assert channel_kurtosis(torch.tensor([[1.0, -1.0, 1.0, -1.0]])).item() == 1.0


def test_one_outlier_by_hand():  # values 0, 0, 0, 4: mean 1, m2 = 3, m4 = (3 * 1 + 81) / 4 = 21
    assert channel_kurtosis(torch.tensor([[0.0, 0.0, 0.0, 4.0]])).item() == pytest.approx(21 / 9, rel=1e-7)


@pytest.mark.parametrize(
    "weight",
    [
        draw(40, 13, 3, 3),
        draw(3, 7919) + 3,  # a prime count, an offset
        draw(2, 40_000) ** 3,  # a row longer than a block
        draw(70, 1100) * 1e-9,
        draw(5, 100) * 1e-20,  # fourth powers underflow in float32
        draw(5, 100) * 1e18,
        draw(6, 300) * 1e-3 + 1000,  # the deviation is a few units in the last place
        draw(6, 300).bfloat16(),
        draw(6, 300).half(),
        draw(4, 1),
    ],
)
def test_equals_scipy(weight):
    if weight.shape[1] == 1:
        assert channel_kurtosis(weight).tolist() == [0.0] * 4
        return
    np.testing.assert_allclose(channel_kurtosis(weight), expected_kurtosis(weight), rtol=FLOAT32_TOLERANCE)


def test_float64_is_kept():
    weight = draw(5, 300).double() + 1e4
    np.testing.assert_allclose(channel_kurtosis(weight), expected_kurtosis(weight), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 300),
    factor=st.floats(1e-6, 1e6),
    sign=st.sampled_from([1, -1]),
)
def test_kurtosis_ignores_scale_and_lies_between_one_and_n(seed, n, factor, sign):
    weight = draw(3, n, seed=seed)
    kurtosis = channel_kurtosis(weight)
    assert bool(((kurtosis >= 1 - 1e-5) & (kurtosis <= n * (1 + 1e-5))).all())
    # scaling rounds every float32 value once more, by up to 6e-8 of it
    np.testing.assert_allclose(channel_kurtosis(weight * factor * sign), kurtosis, rtol=1e-4)


def test_degenerate_channels_do_not_touch_their_neighbours():
    weight = draw(7, 50)
    weight[0], weight[1], weight[2, 3], weight[3, 3] = 0.0, 0.1, torch.nan, -torch.inf
    found = channel_kurtosis(weight)
    assert found[:2].tolist() == [0.0, 0.0]
    assert bool(found[2:4].isnan().all())
    np.testing.assert_allclose(found[4:], expected_kurtosis(weight[4:]), rtol=FLOAT32_TOLERANCE)


def test_strided_and_differentiable_weights():
    weight = draw(30, 20).t().requires_grad_()
    found = channel_kurtosis(weight)
    assert not found.requires_grad
    np.testing.assert_allclose(found, expected_kurtosis(weight), rtol=FLOAT32_TOLERANCE)


def slow_statistics(row):
    """Definitions, one channel, in numpy."""
    spaced = row[:: int(np.ceil(len(row) / 512))]
    deviation = np.median(np.abs(spaced - np.median(spaced)))
    return (
        np.abs(row).max() / np.sqrt(np.mean(row**2)),
        (row.max() - row.min()) / (2 * 1.4826 * deviation),
        np.mean(np.abs(row - row.mean()) > 6 * row.std()),
    )


@pytest.mark.parametrize("n", [9, 100, 40_000])
def test_statistics_equal_their_definitions(n):
    weight = draw(5, n)
    weight[2, 4] = 50.0
    found = channel_statistics(weight)
    for channel, row in enumerate(weight.double().numpy()):
        crest, ratio, outliers = slow_statistics(row)
        assert found.crest[channel] == pytest.approx(crest, rel=1e-6)
        assert found.range_ratio[channel] == pytest.approx(ratio, rel=1e-6)
        assert found.outlier_fraction[channel] == pytest.approx(outliers, abs=1e-12)
    energy = weight.double().square().sum(1).numpy()
    np.testing.assert_allclose(found.energy_share, energy / energy.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.kurtosis, expected_kurtosis(weight), rtol=FLOAT32_TOLERANCE)
    assert not found.degenerate.any()


def test_range_ratio_of_a_long_channel_is_near_that_of_all_its_values():
    weight = draw(40, 20_000, seed=3)
    exact = [
        (row.max() - row.min()) / (2 * 1.4826 * np.median(np.abs(row - np.median(row))))
        for row in weight.double().numpy()
    ]
    error = channel_statistics(weight).range_ratio / exact - 1
    assert np.sqrt(np.mean(error**2)) < 0.08  # 5% expected from 512 of 20,000 values


def test_range_ratio_by_hand():  # values -2, -1, 0, 1, 2: median 0, MAD 1, range 4
    found = channel_statistics(torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]))
    assert found.range_ratio.item() == pytest.approx(4 / (2 * 1.4826))
    assert found.crest.item() == pytest.approx(2 / np.sqrt(2))


def test_statistics_of_degenerate_channels():
    weight = draw(6, 50)
    weight[0], weight[1], weight[2, 3], weight[3, 3] = 0.0, 0.1, torch.nan, torch.inf
    weight[4], weight[4, 0] = 0.0, 1.0
    found = channel_statistics(weight)
    for values in (found.kurtosis, found.crest, found.range_ratio, found.outlier_fraction):
        assert values[:2].tolist() == [0.0, 0.0]
        assert np.isnan(values[2:4]).all()
        assert not np.isnan(values[4:]).any()
    assert found.range_ratio[4] == np.inf  # all but one value are equal
    assert found.degenerate.tolist() == [True, True, True, True, False, False]
    assert np.nansum(found.energy_share) == pytest.approx(1.0)
    assert found.energy_share[0] == 0.0


def test_a_dead_layer():
    found = channel_statistics(torch.zeros(3, 4))
    assert found.energy_share.tolist() == [0.0, 0.0, 0.0]
    assert found.degenerate.all()


@pytest.mark.parametrize("function", [channel_kurtosis, channel_statistics])
def test_shapes_that_are_no_weight(function):
    with pytest.raises(ShapeError, match=r"got shape \(5,\)"):
        function(torch.zeros(5))
    with pytest.raises(ShapeError, match=r"no values in a channel: shape \(5, 0\)"):
        function(torch.zeros(5, 0))
    assert len(channel_kurtosis(torch.zeros(0, 5))) == 0
