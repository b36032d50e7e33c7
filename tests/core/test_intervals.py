import numpy as np
import pytest

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.intervals import bootstrap_mean, centred_bootstrap


def test_mean_and_interval_of_normal_samples_match_the_closed_form():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    estimate = bootstrap_mean(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(values.size)  # the bootstrap uses the 1/n deviation
    assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
    assert estimate.n == 400 and estimate.infinite == 0
    # the 2.5% quantile of 4,000 draws has a standard error of about 0.042 deviations of the mean
    assert estimate.interval.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert estimate.interval.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_two_samples_have_the_four_equally_likely_means():  # 0 with 1/4, 0.5 with 1/2, 1 with 1/4
    estimate = bootstrap_mean([0.0, 1.0], level=0.4)
    assert (estimate.value, estimate.interval.low, estimate.interval.high) == (0.5, 0.5, 0.5)
    wide = bootstrap_mean([0.0, 1.0], level=0.9)
    assert (wide.interval.low, wide.interval.high) == (0.0, 1.0)


def test_interval_depends_on_the_seed_and_on_nothing_else():
    values = np.arange(30.0)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1).interval != bootstrap_mean(values, seed=2).interval
    assert bootstrap_mean(values, level=0.5).interval.low > bootstrap_mean(values, level=0.99).interval.low


def test_interval_does_not_depend_on_the_block_of_draws(monkeypatch):
    values = np.arange(30.0)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("mpqdm_core.intervals._BLOCK_VALUES", 64)
    assert bootstrap_mean(values) == whole


def test_constant_values_have_an_interval_without_width():
    estimate = bootstrap_mean([7.0] * 5)
    assert (estimate.value, estimate.interval.low, estimate.interval.high) == (7.0, 7.0, 7.0)


def test_infinite_values_are_counted_and_left_out():
    estimate = bootstrap_mean([1.0, np.inf, 3.0, -np.inf])
    assert (estimate.value, estimate.n, estimate.infinite) == (2.0, 2, 2)


def test_all_infinite_and_single_values_have_no_interval():
    estimate = bootstrap_mean([np.inf, np.inf])
    assert (estimate.value, estimate.n, estimate.infinite, estimate.interval) == (np.inf, 2, 2, None)
    assert bootstrap_mean([4.0]).interval is None
    assert bootstrap_mean([4.0, np.inf]).value == 4.0


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ([], DataError, "at least one sample"),
        ([1.0, np.nan], DataError, "1 of 2 values are NaN"),
        ([np.inf, -np.inf], DataError, "both"),
        ([[1.0, 2.0]], ShapeError, r"\(1, 2\)"),
    ],
)
def test_values_that_have_no_mean(values, error, match):
    with pytest.raises(error, match=match):
        bootstrap_mean(values)


@pytest.mark.parametrize(("setting", "match"), [({"level": 1.0}, "1.0"), ({"resamples": 1}, "got 1")])
def test_settings_out_of_range(setting, match):
    with pytest.raises(SettingsError, match=match):
        bootstrap_mean([1.0, 2.0], **setting)


def test_centred_interval_removes_a_constant_shift_and_keeps_the_spread():
    interval = centred_bootstrap(
        10.0,
        lambda generator: float(generator.normal(25.0, 1.0)),
        minimum=0.0,
        maximum=np.inf,
        level=0.95,
        resamples=2000,
        seed=0,
        drawn="nothing",
    )
    assert interval.low == pytest.approx(10.0 - 1.96, abs=0.2)
    assert interval.high == pytest.approx(10.0 + 1.96, abs=0.2)
    assert interval.method.startswith("nothing drawn again")


def test_centred_interval_stays_inside_what_is_possible():
    interval = centred_bootstrap(
        0.1,
        lambda generator: float(generator.normal(0.0, 1.0)),
        minimum=0.0,
        maximum=1.0,
        level=0.95,
        resamples=200,
        seed=0,
        drawn="nothing",
    )
    assert (interval.low, interval.high) == (0.0, 1.0)
