"""One pass over the rows of a weight: kurtosis, extremes, the spread of the middle half, outliers.

A row is read from memory once; all that is asked of it is computed while it lies in the cache. Compiled by
numba for the processor it runs on, at the first call on a machine, which takes a few seconds; later processes
read what was kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEDIAN_VALUES = 512  # looked at for the two medians of a row: finding them in all takes longer than the rest
Values = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowFacts:
    """What one pass finds about rows of n values; every array is (rows,) float64.

    Attributes:
        kurtosis: m4 / m2**2 with 1/n moments; 0 for a constant row.
        mean_square: of the values as they are.
        low: smallest value, as float32; NaN where a NaN with a sign is in the row.
        high: largest value, as float32; NaN where one without a sign is.
        deviation: median distance to the median of up to 512 evenly spaced values, as float32; anything where
            a value is NaN or infinite.
        outliers: share of the values more than 6 standard deviations from the mean.
    """

    kurtosis: NDArray[np.float64]
    mean_square: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    deviation: NDArray[np.float64]
    outliers: NDArray[np.float64]


def row_facts(values: Values) -> RowFacts:
    """Look at every row once; releases the interpreter, so that threads can share the work.

    Args:
        values: (rows, n), contiguous, n at least 1. Of float64 moments are exact, the rest is that of the
            values as float32.
    """
    return _facts(values, whole=True)


def row_kurtosis(values: Values) -> NDArray[np.float64]:
    """`RowFacts.kurtosis` alone, in less time: (rows,) float64.

    Args:
        values: (rows, n), contiguous, n at least 1.
    """
    return _facts(values, whole=False).kurtosis


def _facts(values: Values, *, whole: bool) -> RowFacts:
    """Look at every row; `whole` asks for deviations and outliers too."""
    from mpqdm_core.compiled_rows import look_at_rows  # takes half a second to import

    with np.errstate(over="ignore"):
        single = values.astype(np.float32, copy=False)
    kurtosis, mean_square, outliers = np.empty((3, len(values)))
    extremes = np.empty((2, len(values)), dtype=np.int32)
    deviation = np.zeros(len(values), dtype=np.float32)
    spaced, cell = np.empty(MEDIAN_VALUES, dtype=np.float32), np.empty(1, dtype=np.int32)
    look_at_rows(
        values,
        single,
        single.view(np.int32),
        (kurtosis, mean_square, outliers, extremes, deviation),
        (spaced, spaced.view(np.int32), np.empty(MEDIAN_VALUES, dtype=np.int32)),
        (cell, cell.view(np.float32)),
        whole,
    )
    low, high = extremes.view(np.float32).astype(np.float64)
    return RowFacts(
        kurtosis=kurtosis,
        mean_square=mean_square,
        low=low,
        high=high,
        deviation=deviation.astype(np.float64),
        outliers=outliers,
    )
