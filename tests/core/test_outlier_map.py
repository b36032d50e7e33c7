"""Outlier statistics as flat arrays: the round trip, ratios by hand, and who holds the outliers."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.outlier_map import (
    WEIGHT_STATISTICS,
    OutlierMap,
    excess_kurtosis,
    layers_holding,
    worst_channels,
)


def statistics(first, count):
    return SimpleNamespace(
        **{name: np.arange(first, first + count, dtype=float) for name in WEIGHT_STATISTICS}
    )


def layer(name, outputs, inputs, *, prescaled=True):
    steps = np.arange(2 * inputs, dtype=np.float32).reshape(2, inputs)
    return SimpleNamespace(
        name=name,
        weight=statistics(0, outputs),
        prescaled=statistics(10, outputs) if prescaled else None,
        prescale=np.full(inputs, 2.0, dtype=np.float32) if prescaled else None,
        inputs=SimpleNamespace(absmax=steps, rms=steps / 2, low=-steps.max(axis=1), high=steps.max(axis=1)),
    )


class Stats:
    timesteps = (900, 100)
    layers = (layer("a", 3, 2), layer("b", 2, 4, prescaled=False))

    def layer(self, name):
        return next(found for found in self.layers if found.name == name)


@pytest.fixture
def flat():
    return OutlierMap.from_stats(Stats(), ["a", "b"])


def test_channels_of_all_layers_lie_in_one_row(flat):
    assert flat.layer_start.tolist() == [0, 3, 5]
    assert flat.input_start.tolist() == [0, 2, 6]
    assert flat.weights["crest"].tolist() == [0, 1, 2, 0, 1]


def test_a_layer_without_prescaling_has_nan_and_factors_of_one(flat):
    assert flat.prescaled["kurtosis"][:3].tolist() == [10, 11, 12]
    assert np.isnan(flat.prescaled["kurtosis"][3:]).all()
    assert flat.layer_prescale("a").tolist() == [2, 2]
    assert flat.layer_prescale("b").tolist() == [1, 1, 1, 1]


def test_what_is_saved_is_loaded(flat, tmp_path):
    flat.save(tmp_path / "outliers.npz")
    again = OutlierMap.load(tmp_path / "outliers.npz")
    assert again.layer_names == flat.layer_names
    for name in ("layer_start", "input_start", "prescale", "timesteps", "absmax", "rms", "low", "high"):
        np.testing.assert_array_equal(getattr(again, name), getattr(flat, name))
    for name in WEIGHT_STATISTICS:
        np.testing.assert_array_equal(again.weights[name], flat.weights[name])
        np.testing.assert_array_equal(again.prescaled[name], flat.prescaled[name])


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04broken"])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    (tmp_path / "outliers.npz").write_bytes(content)
    with pytest.raises(LoadError, match=r"outliers\.npz is damaged"):
        OutlierMap.load(tmp_path / "outliers.npz")


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(LoadError, match="no outlier statistics at"):
        OutlierMap.load(tmp_path / "none.npz")


def test_input_statistics_by_hand(flat):
    # step 1: layer a has maxima 2, 3 (median 2.5); layer b has 4, 5, 6, 7 (median 5.5)
    assert flat.input_statistic("absmax", 1).tolist() == [2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(flat.input_statistic("crest", 1), 2.0)
    np.testing.assert_allclose(
        flat.input_statistic("channel_ratio", 1),
        [2 / 2.5, 3 / 2.5, 4 / 5.5, 5 / 5.5, 6 / 5.5, 7 / 5.5],
        rtol=1e-6,
    )


def test_a_dead_channel_has_ratio_zero(flat):
    assert flat.input_statistic("crest", 0)[0] == 0.0


def test_an_unknown_statistic_or_step_is_refused(flat):
    with pytest.raises(SettingsError, match="'median'"):
        flat.input_statistic("median", 0)
    with pytest.raises(SettingsError, match=r"0\.\.1, got 2"):
        flat.input_statistic("rms", 2)
    with pytest.raises(SettingsError, match="no statistics for layer 'c'"):
        flat.layer_prescale("c")


def test_the_layers_that_hold_most_come_first():
    values = np.array([1.0, 1.0, 10.0, 0.0, 5.0, 3.0])
    start = np.array([0, 2, 4, 6])  # sums 2, 10, 8
    assert layers_holding(values, start, 0.5) == (1,)
    assert layers_holding(values, start, 0.8) == (1, 2)
    assert layers_holding(values, start, 1.0) == (1, 2, 0)
    assert layers_holding(np.zeros(6), start) == ()


@given(st.lists(st.floats(0, 1e6), min_size=6, max_size=6), st.floats(0.01, 1.0))
def test_fewer_layers_would_not_hold_the_share(values, share):
    start = np.array([0, 2, 4, 6])
    sums = np.add.reduceat(np.array(values), start[:-1])
    held = layers_holding(np.array(values), start, share)
    if held:
        assert sums[list(held)].sum() >= share * sums.sum() * (1 - 1e-9)
        assert sums[list(held[:-1])].sum() < share * sums.sum() * (1 + 1e-9)


def test_not_finite_channels_are_never_the_worst():
    values = np.array([1.0, np.nan, np.inf, 7.0, -2.0])
    assert worst_channels(values, 3).tolist() == [3, 0, 4]
    assert worst_channels(values, 3, above=1.0).tolist() == [3]


def test_excess_is_above_a_gaussian_only():
    np.testing.assert_array_equal(excess_kurtosis(np.array([2.0, 3.0, 5.5, np.nan])), [0, 0, 2.5, np.nan])
