"""The compiled pass against numpy's own sorts and sums."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpqdm_core.row_pass import MEDIAN_VALUES, row_facts, row_kurtosis

FINITE = st.floats(-1e6, 1e6, width=32)
ROWS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=FINITE)


def spread(row):
    spaced = row[:: -(-len(row) // MEDIAN_VALUES)]
    return np.median(np.abs(spaced - np.median(spaced)))


@settings(max_examples=200, deadline=None)
@given(ROWS)
@example(np.array([[-0.0, 0.0, -0.0]], dtype=np.float32))
@example(np.array([[1.0, 1.0, 1.0, 7.0], [-1.0, -7.0, -1.0, -1.0]], dtype=np.float32))
@example(np.array([[1e-45, -1e-45, 0.0, 3e38]], dtype=np.float32))
def test_extremes_and_medians_are_those_that_sorting_finds(rows):
    facts = row_facts(rows)
    np.testing.assert_array_equal(facts.low, rows.min(axis=1))
    np.testing.assert_array_equal(facts.high, rows.max(axis=1))
    np.testing.assert_array_equal(facts.deviation, [spread(row) for row in rows])


@pytest.mark.parametrize("n", [1, 2, 511, 512, 513, 1025, 2047, 2049, 11_520])
@pytest.mark.parametrize("tail", [2, 5, 1000])
def test_rows_of_every_length_and_tail(n, tail):
    rows = np.random.default_rng(n).standard_t(tail, size=(20, n)).astype(np.float32)
    facts, exact = row_facts(rows), rows.astype(np.float64)
    np.testing.assert_array_equal(facts.deviation, [spread(row) for row in rows])
    np.testing.assert_allclose(facts.mean_square, np.square(exact).mean(axis=1), rtol=2e-6)
    if n > 1:
        np.testing.assert_allclose(
            facts.kurtosis, scipy.stats.kurtosis(exact, axis=1, fisher=False), rtol=5e-6
        )
    far = np.abs(exact - exact.mean(axis=1, keepdims=True)) > 6 * exact.std(axis=1, keepdims=True)
    np.testing.assert_allclose(facts.outliers, far.mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(row_kurtosis(rows), facts.kurtosis)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3000, 4999])
def test_one_broken_value_marks_its_row_and_no_other(value, place):
    rows = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    whole = row_facts(rows)
    rows[1, place] = value
    broken = row_facts(rows)
    assert not np.isfinite([broken.low[1], broken.high[1]]).all()
    assert np.isnan(broken.kurtosis[1])
    for name in ("kurtosis", "low", "high", "deviation", "mean_square", "outliers"):
        np.testing.assert_array_equal(getattr(broken, name)[::2], getattr(whole, name)[::2])


def test_double_precision_keeps_its_moments():
    rows = np.random.default_rng(1).normal(size=(4, 900)) + 1e5
    facts = row_facts(rows)
    np.testing.assert_allclose(facts.kurtosis, scipy.stats.kurtosis(rows, axis=1, fisher=False), rtol=1e-9)
    np.testing.assert_allclose(facts.mean_square, np.square(rows).mean(axis=1), rtol=1e-13)
    np.testing.assert_array_equal(facts.low, rows.min(axis=1).astype(np.float32))


def test_threads_do_not_disturb_each_other():
    blocks = [np.random.default_rng(seed).normal(size=(50, 700)).astype(np.float32) for seed in range(16)]
    alone = [row_facts(block).deviation for block in blocks]
    with ThreadPoolExecutor(4) as workers:
        together = [facts.deviation for facts in workers.map(row_facts, blocks)]
    np.testing.assert_array_equal(together, alone)
