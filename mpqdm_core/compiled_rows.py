"""Compiled functions that look at the rows of a weight; `row_pass` calls them.

Extremes and medians compare the bits of the numbers as integers, which orders them as the numbers are
ordered, puts NaN at the ends instead of losing it, and fills the processor's vector units where comparisons
of floats do not. All of them stand in one file: what numba keeps on disk is renewed when this file changes,
not when another one does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpqdm_core.compiled import compiled

SEGMENT = 2048  # values summed in float32, in a few interleaved sums, before float64 takes over
INTERPOLATED_TURNS = 3  # of four; the fourth halves the interval, whatever the distribution
SMALLEST_M2, LARGEST_M2 = 1e-14, 1e13  # outside, fourth powers in float32 underflow or overflow
LARGEST_MEAN = 0.25  # in standard deviations, for float32 sums: beyond, differences of them lose digits
OUTLIER_SIGMAS = 6.0
# Of a Gaussian, in standard deviations: its median absolute deviation, and one over the density at its median
# and at that deviation.
GAUSSIAN_MAD, GAUSSIAN_WIDTH, GAUSSIAN_MAD_WIDTH = 0.6745, 2.507, 1.573
# Sums may be taken in any order; NaN and infinity stay what they are.
OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "nogil": True,
    "error_model": "numpy",
}
LEAST, MOST = np.int32(-(2**31)), np.int32(2**31 - 1)


@compiled(**OPTIONS)
def _ordered(bits: Any) -> Any:
    """Bits of a float32 as an integer that is ordered as the numbers are; its own inverse."""
    return bits ^ ((bits >> np.int32(31)) & MOST)


@compiled(**OPTIONS)
def _segment_sums(values: Any) -> Any:
    first = second = third = fourth = np.float32(0)
    for i in range(values.shape[0]):
        value = values[i]
        square = value * value
        first += value
        second += square
        third += square * value
        fourth += square * square
    return first, second, third, fourth


@compiled(**OPTIONS)
def _moments(row: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """Kurtosis, mean, mean square and variance of a row, by its sums of powers if those are enough."""
    n = row.shape[0]
    mean, second, third, fourth = first / n, second / n, third / n, fourth / n
    variance = second - mean * mean
    if SMALLEST_M2 < variance < LARGEST_M2 and mean * mean <= LARGEST_MEAN**2 * variance:
        m4 = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        return m4 / variance**2, mean, second, variance
    return _exact_moments(row)


@compiled(**OPTIONS)
def _exact_moments(row: Any) -> Any:
    """The same in float64 and two passes; powers are those of deviations in units of the largest one."""
    n = row.shape[0]
    total, squares = 0.0, 0.0
    low = high = row[0]
    for i in range(n):
        value = np.float64(row[i])
        total += value
        squares += value * value
        low, high = min(low, row[i]), max(high, row[i])
    mean = total / n
    if low == high and np.isfinite(low):
        return 0.0, mean, squares / n, 0.0
    unit = max(np.float64(high) - mean, mean - np.float64(low))
    second, fourth = 0.0, 0.0
    for i in range(n):
        square = ((np.float64(row[i]) - mean) / unit) ** 2
        second += square
        fourth += square * square
    second, fourth = second / n, fourth / n
    return fourth / second**2, mean, squares / n, second * unit**2


@compiled(**OPTIONS)
def _largest(bits: Any) -> Any:
    """Largest of the bits as integers with and without a sign: farthest on the positive and negative side."""
    signed, unsigned = LEAST, np.uint32(0)
    for i in range(bits.shape[0]):
        signed = max(signed, bits[i])
        unsigned = max(unsigned, np.uint32(bits[i]))
    return signed, unsigned


@compiled(**OPTIONS)
def _extremes(bits: Any, signed: Any, unsigned: Any) -> Any:
    """Bits of the smallest and largest number of a row."""
    low, high = np.int32(unsigned), signed
    if low >= 0 or high < 0:  # all of one sign: the other end is the smallest of the integers
        end = MOST
        for i in range(bits.shape[0]):
            end = min(end, bits[i])
        if low >= 0:
            low = end
        else:
            high = end
    return low, high


@compiled(**OPTIONS)
def _median(keys: Any, low: Any, high: Any, guess: Any, width: Any, cell: Any, number: Any) -> Any:
    """Median of numbers between `low` and `high`, given as ordered integers.

    Counting how many are below a pivot takes a few dozen cycles in vector units, so few pivots beat any sort.
    The first is `guess`; the second lies as far from it as the count was off if the numbers were spread
    evenly over `width`; the others are interpolated, as the middle of most distributions is nearly even.
    """
    m = keys.shape[0]
    rank = (m - 1) // 2  # of the lower of two middle values
    middle = np.float32(rank + 0.5)
    number[0] = low
    under, count_under = (
        np.int64(_ordered(cell[0])) - 1,
        np.float32(0),
    )  # at most `rank` numbers are up to here
    number[0] = high
    upto, count_upto = np.int64(_ordered(cell[0])), np.float32(m)  # more than `rank` are up to here
    aim, turn = guess, 0
    while upto - under > 1:
        number[0] = aim
        pivot = np.int64(_ordered(cell[0]))
        if turn % (INTERPOLATED_TURNS + 1) == INTERPOLATED_TURNS:
            pivot = (under + upto) >> 1
        pivot = min(max(pivot, under + 1), upto - 1)
        key = np.int32(pivot)
        count = np.float32(0)  # 32 bits wide as the keys are: sums of integers would be 64, half as fast
        for i in range(m):
            count += np.float32(1) if keys[i] <= key else np.float32(0)
        if count == rank + 1:
            below, above = LEAST, MOST
            for i in range(m):
                below = max(below, keys[i] if keys[i] <= key else LEAST)
                above = min(above, keys[i] if keys[i] > key else MOST)
            return _between(below, above, m, cell, number)
        cell[0] = _ordered(key)
        if count > rank:
            upto, count_upto, high = pivot, count, number[0]
        else:
            under, count_under, low = pivot, count, number[0]
        if turn == 0:
            aim = number[0] + (middle - count) * width / np.float32(m)
        else:
            aim = low + (high - low) * (middle - count_under) / (count_upto - count_under)
        turn += 1
    return _between(np.int32(upto), np.int32(upto), m, cell, number)  # equal numbers fill the middle


@compiled(**OPTIONS)
def _between(lower: Any, upper: Any, m: Any, cell: Any, number: Any) -> Any:
    """The lower of two middle values, or the mean of both if they share the middle."""
    cell[0] = _ordered(lower)
    median = number[0]
    if m % 2 == 0:
        cell[0] = _ordered(upper)
        median = (median + number[0]) / np.float32(2)
    return median


@compiled(**OPTIONS)
def _take(row: Any, step: Any, spaced: Any) -> None:
    """Every `step`-th value; small steps are written out, as vector units need to know them."""
    m = spaced.shape[0]
    if step == 1:
        for i in range(m):
            spaced[i] = row[i]
    elif step == 2:
        for i in range(m):
            spaced[i] = row[2 * i]
    elif step == 3:
        for i in range(m):
            spaced[i] = row[3 * i]
    else:
        for i in range(m):
            spaced[i] = row[i * step]


@compiled(**OPTIONS)
def look_at_rows(
    values: Any, single: Any, bits: Any, found: Any, scratch: Any, cells: Any, whole: Any
) -> None:
    """Fill in what is found about every row.

    Args:
        values: (rows, n) float32 or float64.
        single: the same as float32.
        bits: `single` seen as int32.
        found: kurtosis, mean square and outliers (rows,) float64, extremes (2, rows) int32 and deviation
            (rows,) float32.
        scratch: for the values whose medians are taken: float32, the same memory as int32, other int32.
        cells: one number as int32 and, the same memory, as float32.
        whole: whether outliers and deviation are asked for.
    """
    kurtosis, mean_square, outliers, extremes, deviation = found
    spaced, spaced_bits, keys = scratch
    cell, number = cells
    n = values.shape[1]
    step = (n + spaced.shape[0] - 1) // spaced.shape[0]
    m = (n + step - 1) // step
    for row in range(values.shape[0]):
        first = second = third = fourth = 0.0
        signed, unsigned = LEAST, np.uint32(0)
        for start in range(0, n, SEGMENT):
            end = min(start + SEGMENT, n)
            one, two, three, four = _segment_sums(single[row, start:end])
            first, second, third, fourth = first + one, second + two, third + three, fourth + four
            here, there = _largest(bits[row, start:end])
            signed, unsigned = max(signed, here), max(unsigned, there)
        extremes[0, row], extremes[1, row] = _extremes(bits[row], signed, unsigned)
        if values.itemsize == 4:
            kurtosis[row], mean, mean_square[row], variance = _moments(
                values[row], first, second, third, fourth
            )
        else:
            kurtosis[row], mean, mean_square[row], variance = _exact_moments(values[row])
        if not whole:
            continue
        cell[0] = extremes[0, row]
        low = number[0]
        cell[0] = extremes[1, row]
        high = number[0]
        sigma = np.sqrt(variance)
        outliers[row] = 0.0
        if max(high - mean, mean - low) > OUTLIER_SIGMAS * sigma:
            outliers[row] = _count_far(values[row], mean, OUTLIER_SIGMAS * sigma) / n
        _take(single[row], step, spaced[:m])
        for i in range(m):
            keys[i] = _ordered(spaced_bits[i])
        width = np.float32(GAUSSIAN_WIDTH * sigma)
        median = _median(keys[:m], low, high, np.float32(mean), width, cell, number)
        for i in range(m):
            spaced[i] = abs(spaced[i] - median)
        farthest, guess = max(high - median, median - low), np.float32(GAUSSIAN_MAD * sigma)
        width = np.float32(GAUSSIAN_MAD_WIDTH * sigma)
        deviation[row] = _median(spaced_bits[:m], np.float32(0), farthest, guess, width, cell, number)


@compiled(**OPTIONS)
def _count_far(row: Any, centre: Any, distance: Any) -> Any:
    count = 0
    for i in range(row.shape[0]):
        count += abs(row[i] - centre) > distance
    return count
