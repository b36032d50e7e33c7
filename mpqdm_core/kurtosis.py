"""Outlier statistics of the output channels of a weight.

Streamed in blocks of rows that stay in the cache, so that a weight of any size costs one pass over memory
and a few megabytes. Powers of half and single precision are summed in float32 on short segments, and those
sums in float64; channels where that could lose digits, and float64 input, take a float64 path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

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
    kurtosis, trusted = _kurtosis_float32(rows)
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
        range_ratio: (max - min) / (2 * 1.4826 * MAD), MAD the median distance to the median; infinite where
            more than half of the values are equal and the others are not.
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
    rows = _rows(weight)
    count = rows.shape[0]
    crest, range_ratio, outliers, energy = (np.zeros(count) for _ in range(4))
    constant, broken = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for start, block in _blocks(rows):
        part = slice(start, start + block.shape[0])
        low, high = (edge.double().cpu().numpy() for edge in (block.amin(dim=1), block.amax(dim=1)))
        broken[part] = ~np.isfinite(low) | ~np.isfinite(high)
        constant[part] = low == high
        values = block.double()  # (rows, n)
        mean_square = values.square().mean(dim=1)
        mean = values.mean(dim=1, keepdim=True)
        sigma = (values - mean).square_().mean(dim=1, keepdim=True).sqrt()
        outliers[part] = ((values - mean).abs_() > OUTLIER_SIGMAS * sigma).double().mean(dim=1).cpu().numpy()
        energy[part] = values.shape[1] * mean_square.cpu().numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            crest[part] = np.maximum(-low, high) / mean_square.sqrt().cpu().numpy()
            range_ratio[part] = (high - low) / (2 * MAD_TO_SIGMA * _median_deviation(block))
    crest[constant], range_ratio[constant], outliers[constant] = 0.0, 0.0, 0.0
    for values_of in (crest, range_ratio, outliers, energy):
        values_of[broken] = np.nan
    total = float(np.nansum(energy))
    return ChannelStatistics(
        kurtosis=channel_kurtosis(weight).cpu().numpy(),
        crest=crest,
        range_ratio=range_ratio,
        outlier_fraction=outliers,
        energy_share=energy / total if total > 0 else energy,
        degenerate=constant | broken,
    )


def _rows(weight: Tensor) -> Tensor:
    """(C_out, n) view of a weight, detached; float64 or something that fits into float32."""
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    if 0 in weight.shape[1:]:
        raise ShapeError(f"weight has no values in a channel: shape {tuple(weight.shape)}")
    return weight.detach().flatten(1)


def _blocks(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows of at least float32) in blocks of about BLOCK_VALUES values."""
    height = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], height):
        block = rows[start : start + height]
        yield start, block if block.dtype in (torch.float32, torch.float64) else block.float()


def _kurtosis_float32(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Kurtosis of rows through float32, and whether float32 was enough for it; both (C_out,)."""
    moments = torch.from_numpy(_raw_moments(rows)).to(rows.device)  # (4, C_out)
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


def _median_deviation(block: Tensor) -> NDArray[np.float64]:
    """Median distance to the median of every row, (rows,); numpy's convention for an even count."""
    values = block.cpu().numpy()  # (rows, n)
    median = np.median(values, axis=1, keepdims=True)
    deviation: NDArray[np.float64] = np.median(np.abs(values - median), axis=1).astype(np.float64)
    return deviation
