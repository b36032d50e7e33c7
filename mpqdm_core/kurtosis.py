"""Outlier statistics of the output channels of a weight.

Streamed in blocks of rows that stay in the cache, so that a weight of any size costs one pass over memory
and a few megabytes. Powers of half and single precision are summed in float32 on short segments, and those
sums in float64; channels where that could lose digits, and float64 input, take a float64 path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpqdm_core.errors import ShapeError

BLOCK_VALUES = 32_767  # stays in the cache; torch splits larger work, and waiting for threads costs more here
NUMPY_BLOCK_VALUES = 1 << 19  # numpy does not split: fewer calls; a second thread waits for the interpreter
LONGEST_SEGMENT = 2048  # values summed in float32 before float64 takes over
SAFE_M2 = (1e-14, 1e13)  # outside, fourth powers in float32 underflow or overflow
LARGEST_MEAN = 0.25  # in standard deviations, for the float32 path
OUTLIER_SIGMAS = 6.0
MEDIAN_VALUES = (
    512  # looked at for the two medians of a channel: finding them in all takes longer than the rest
)
MAD_TO_SIGMA = 1.4826  # standard deviation of a Gaussian in units of its median absolute deviation


def channel_kurtosis(weight: Tensor) -> Tensor:
    """Pearson kurtosis of every output channel: a Gaussian channel scores 3, heavier tails score more.

    Within a relative 2e-6 of the float64 value for float32 and half precision, 1e-12 for float64 input.

    Args:
        weight: (C_out, ...), any float dtype; the trailing axes are pooled into n values.

    Returns:
        (C_out,) float64, dimensionless, within [1, n]; 0 for a constant channel; NaN where a value is
        NaN or infinite.

    Raises:
        ShapeError: `weight` has fewer than two axes, or no values in a channel.

    Source:
        m4 / m2**2 with 1/n moments, equal to scipy.stats.kurtosis(fisher=False). MPQ-DM's own code uses the
        1/(n-1) deviation: lower by ((n-1)/n)**2.
    """
    rows = _rows(weight)
    if rows.dtype == torch.float64:
        return _kurtosis_float64(rows)
    kurtosis, trusted = _kurtosis_float32(torch.from_numpy(_raw_moments(rows)).to(rows.device))
    if not bool(trusted.all()):
        kurtosis[~trusted] = _kurtosis_float64(rows[~trusted])
    return kurtosis


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelStatistics:
    """What makes each output channel of one weight hard to quantize; every array is (C_out,).

    A constant channel (dead ones too) has kurtosis, crest, range_ratio and outlier_fraction 0. A channel
    with NaN or infinity has NaN everywhere. Both are marked in `degenerate`.

    Attributes:
        kurtosis: m4 / m2**2, see `channel_kurtosis`.
        crest: max|w| / rms(w).
        range_ratio: (max - min) / (2 * 1.4826 * MAD), MAD the median distance to the median of up to 512
            evenly spaced values (a standard error of 5% in a longer channel); infinite where more than half
            of them are equal and the others are not.
        outlier_fraction: share of the values more than 6 standard deviations from the mean.
        energy_share: squared norm of the channel over that of all finite channels together; 0 if that is 0.
        degenerate: bool.
    """

    kurtosis: NDArray[np.float64]
    crest: NDArray[np.float64]
    range_ratio: NDArray[np.float64]
    outlier_fraction: NDArray[np.float64]
    energy_share: NDArray[np.float64]
    degenerate: NDArray[np.bool_]


def channel_statistics(weight: Tensor) -> ChannelStatistics:
    """All outlier statistics of every output channel.

    Args:
        weight: (C_out, ...), any float dtype; the trailing axes are pooled.

    Returns:
        float64 arrays (C_out,); the ratios of ranges and medians are those of the float32 values.

    Raises:
        ShapeError: `weight` has fewer than two axes, or no values in a channel.
    """
    return joined_statistics([weight])


def joined_statistics(parts: Iterable[Tensor]) -> ChannelStatistics:
    """`channel_statistics` of a weight that comes in parts along its first axis, one at a time.

    Args:
        parts: (c, ...) each, any float dtype; looked at and let go in turn.

    Returns:
        float64 arrays over all channels together.

    Raises:
        ShapeError: there is no part, or a part is no weight.
    """
    collected: list[dict[str, NDArray[np.float64]]] = []
    for part in parts:
        rows = _rows(part)
        for _, block in _blocks(rows, NUMPY_BLOCK_VALUES):
            collected.append(_block_statistics(block))
    if not collected:
        raise ShapeError("a weight without output channels has no statistics")
    whole = {name: np.concatenate([block[name] for block in collected]) for name in collected[0]}
    low, high, mean_square = whole["low"], whole["high"], whole["mean_square"]
    broken, constant = ~np.isfinite(low) | ~np.isfinite(high), low == high
    energy = whole["energy"]
    with np.errstate(divide="ignore", invalid="ignore"):
        crest = np.maximum(-low, high) / np.sqrt(mean_square)
        range_ratio = (high - low) / (2 * MAD_TO_SIGMA * whole["deviation"])
    outliers = whole["outliers"]
    crest[constant], range_ratio[constant], outliers[constant] = 0.0, 0.0, 0.0
    for values_of in (crest, range_ratio, outliers, energy):
        values_of[broken] = np.nan
    total = float(np.nansum(energy))
    return ChannelStatistics(
        kurtosis=whole["kurtosis"],
        crest=crest,
        range_ratio=range_ratio,
        outlier_fraction=outliers,
        energy_share=energy / total if total > 0 else energy,
        degenerate=constant | broken,
    )


def _block_statistics(block: Tensor) -> dict[str, NDArray[np.float64]]:
    """Everything about a few rows, by name; all (rows,)."""
    values = block.cpu().numpy()  # (rows, n)
    n = values.shape[1]
    kurtosis, mean, mean_square = _moments(block)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = values.min(axis=1).astype(np.float64), values.max(axis=1).astype(np.float64)
        variance = mean_square - mean**2
        for row in np.flatnonzero(variance < LARGEST_MEAN**2 * mean_square):  # the difference lost its digits
            variance[row] = values[row].var(dtype=np.float64)
        sigma = np.sqrt(np.maximum(variance, 0.0))
        deviation = _median_deviation(values[:, :: -(-n // MEDIAN_VALUES)])
        outliers = np.zeros(len(values))
        for row in np.flatnonzero(np.maximum(high - mean, mean - low) > OUTLIER_SIGMAS * sigma):
            outliers[row] = np.mean(np.abs(values[row] - mean[row]) > OUTLIER_SIGMAS * sigma[row])
    return {
        "kurtosis": kurtosis,
        "low": low,
        "high": high,
        "mean_square": mean_square,
        "energy": n * mean_square,
        "deviation": deviation.astype(np.float64),
        "outliers": outliers,
    }


def _moments(block: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Kurtosis, mean and mean square of a few rows, all (rows,), from one set of sums."""
    if block.dtype == torch.float64:
        double = block.cpu().numpy()
        return (
            _kurtosis_float64(block).cpu().numpy(),
            double.mean(axis=1),
            np.vecdot(double, double) / block.shape[1],
        )
    moments = _raw_moments(block)
    kurtosis, trusted = _kurtosis_float32(torch.from_numpy(moments))
    if not bool(trusted.all()):
        kurtosis[~trusted] = _kurtosis_float64(block[~trusted]).cpu()
    return kurtosis.numpy(), moments[0], moments[1]


def _median_deviation(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Median absolute deviation from the median of every row, (rows,); rows with NaN give anything."""
    own = values.copy()
    own -= _median(own)[:, None]
    return _median(np.abs(own, out=own))


def _median(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Median of every row, (rows,); puts the rows out of order. Several times faster than `np.median`."""
    middle = values.shape[1] // 2
    values.partition(middle, axis=1)
    upper = values[:, middle]
    return upper.copy() if values.shape[1] % 2 else (upper + values[:, :middle].max(axis=1)) / 2


def _rows(weight: Tensor) -> Tensor:
    """(C_out, n) view of a weight, detached; float64 or something that fits into float32."""
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    if 0 in weight.shape[1:]:
        raise ShapeError(f"weight has no values in a channel: shape {tuple(weight.shape)}")
    return weight.detach().flatten(1)


def _blocks(rows: Tensor, size: int = BLOCK_VALUES) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows of at least float32) in blocks of about `size` values."""
    height = max(1, size // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], height):
        block = rows[start : start + height]
        yield start, block if block.dtype in (torch.float32, torch.float64) else block.float()


def _kurtosis_float32(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Kurtosis from raw moments (4, C_out) of float32 sums, and whether those were enough; both (C_out,)."""
    mean, s2, s3, s4 = moments
    m2 = s2 - mean.square()  # (C_out,)
    m4 = s4 - 4 * mean * s3 + 6 * mean.square() * s2 - 3 * mean.square().square()  # (C_out,)
    smallest, largest = SAFE_M2
    # Beyond this mean the differences above lose digits that float32 sums do not have to spare.
    trusted = (m2 > smallest) & (m2 < largest) & (mean.square() <= LARGEST_MEAN**2 * m2)
    return m4 / m2.square(), trusted


def _raw_moments(rows: Tensor) -> NDArray[np.float64]:
    """Means of the first to fourth powers of every row, (4, C_out).

    Of the values themselves: subtracting the mean first takes longer than all the sums together.
    """
    count, n = rows.shape
    length = _segment_length(n)
    sums = np.empty((4, count, n // length), dtype=np.float32)
    ones = np.ones(length, dtype=np.float32)
    height = max(1, min(count, NUMPY_BLOCK_VALUES // n))
    buffer = np.empty((height * n // length, length), dtype=np.float32)
    for start in range(0, count, height):
        first, second, third, fourth = sums[:, start : start + height]
        values = rows[start : start + height].float().cpu().numpy()
        segments = values.reshape(*first.shape, length)
        with np.errstate(over="ignore", invalid="ignore"):  # such channels are not trusted by the caller
            squares = np.multiply(segments, segments, out=buffer[: first.size].reshape(segments.shape))
            np.vecdot(segments, ones, out=first)
            np.vecdot(segments, segments, out=second)
            np.vecdot(squares, segments, out=third)
            np.vecdot(squares, squares, out=fourth)
    moments: NDArray[np.float64] = sums.sum(axis=2, dtype=np.float64) / n
    return moments


def _kurtosis_float64(rows: Tensor) -> Tensor:
    """Kurtosis of any rows, in float64 throughout; 0 for constant rows."""
    result = torch.empty(rows.shape[0], dtype=torch.float64, device=rows.device)
    for start, block in _blocks(rows):
        values = block.double()  # (rows, n)
        # A power of two near the largest deviation changes no digit and keeps fourth powers in range.
        centred = values - values.mean(dim=1, keepdim=True)
        exponent = torch.frexp(centred.abs().amax(dim=1, keepdim=True)).exponent
        squares = torch.ldexp(centred, -exponent).square_()
        kurtosis = squares.square().mean(dim=1) / squares.mean(dim=1).square()
        low, high = block.amin(dim=1), block.amax(dim=1)
        constant = (low == high) & torch.isfinite(low)
        result[start : start + block.shape[0]] = torch.where(constant, 0.0, kurtosis)
    return result


@lru_cache(maxsize=1024)
def _segment_length(count: int) -> int:
    """Largest divisor of `count` up to LONGEST_SEGMENT, or `count` itself where all divisors are tiny."""
    length = max(size for size in range(1, min(count, LONGEST_SEGMENT) + 1) if count % size == 0)
    return length if length >= min(count, 64) else count
