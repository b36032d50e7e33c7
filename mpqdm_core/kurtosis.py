"""Outlier statistics of the output channels of a weight.

Streamed in blocks of rows, so that a weight of any size costs one pass over memory and a few megabytes.
Powers of half and single precision are summed in float32 on short segments, and those sums in float64;
channels where that could lose digits, and float64 input, take a float64 path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpqdm_core.errors import ShapeError
from mpqdm_core.row_pass import RowFacts, row_facts, row_kurtosis

BLOCK_VALUES = 1 << 21  # of one call of the compiled pass: few calls, and little memory for half precision
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
    kurtosis = [row_kurtosis(block.cpu().numpy()) for block in _blocks(rows)]
    return torch.from_numpy(np.concatenate([np.empty(0), *kurtosis])).to(rows.device)


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
    return join_parts(part_statistics(weight), _rows(weight).shape[1])


def part_statistics(part: Tensor) -> list[RowFacts]:
    """What `join_parts` needs to know of some rows of a weight; may be called in several threads.

    Args:
        part: (c, ...), any float dtype.

    Raises:
        ShapeError: `part` has fewer than two axes, or no values in a channel.
    """
    return [row_facts(block.cpu().numpy()) for block in _blocks(_rows(part))]


def join_parts(parts: Sequence[RowFacts], values: int) -> ChannelStatistics:
    """Statistics of one weight from those of all its rows.

    Args:
        parts: in the order of the rows.
        values: of one channel.

    Raises:
        ShapeError: there is no part.
    """
    if not parts:
        raise ShapeError("a weight without output channels has no statistics")
    low, high = _joined(parts, "low"), _joined(parts, "high")
    mean_square, outliers = _joined(parts, "mean_square"), _joined(parts, "outliers")
    broken, constant = ~np.isfinite(low) | ~np.isfinite(high), low == high
    energy = values * mean_square
    with np.errstate(divide="ignore", invalid="ignore"):
        crest = np.maximum(-low, high) / np.sqrt(mean_square)
        range_ratio = (high - low) / (2 * MAD_TO_SIGMA * _joined(parts, "deviation"))
    crest[constant], range_ratio[constant], outliers[constant] = 0.0, 0.0, 0.0
    for values_of in (crest, range_ratio, outliers, energy):
        values_of[broken] = np.nan
    total = float(np.nansum(energy))
    return ChannelStatistics(
        kurtosis=_joined(parts, "kurtosis"),
        crest=crest,
        range_ratio=range_ratio,
        outlier_fraction=outliers,
        energy_share=energy / total if total > 0 else energy,
        degenerate=constant | broken,
    )


def _joined(parts: Sequence[RowFacts], name: str) -> NDArray[np.float64]:
    return np.concatenate([getattr(part, name) for part in parts])


def _rows(weight: Tensor) -> Tensor:
    """(C_out, n) view of a weight, detached; float64 or something that fits into float32."""
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    if 0 in weight.shape[1:]:
        raise ShapeError(f"weight has no values in a channel: shape {tuple(weight.shape)}")
    return weight.detach().flatten(1)


def _blocks(rows: Tensor) -> Iterator[Tensor]:
    """Contiguous rows of single or double precision, a few megabytes at a time."""
    height = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], height):
        block = rows[start : start + height]
        yield (block if block.dtype in (torch.float32, torch.float64) else block.float()).contiguous()
