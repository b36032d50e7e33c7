"""How sure a number is: means and statistics of samples with a bootstrap interval.

All arithmetic is float64. Randomness comes from a seed given by the caller: the same values and seed give the
same interval on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpqdm_core.errors import DataError, SettingsError, ShapeError

Array = npt.NDArray[np.float64]

DEFAULT_LEVEL = 0.95
DEFAULT_RESAMPLES = 1000
_BLOCK_VALUES = 4_000_000  # values gathered at once: 32 MB, so that memory does not grow with the resamples


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where the statistic of another draw of as many samples would fall, `level` of the time."""

    low: float
    high: float
    level: float  # share of the resampled statistics inside [low, high]
    resamples: int  # how many times the samples were drawn again
    method: str  # one phrase for a tooltip: what was drawn again and how the ends were read


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over samples."""

    value: float
    n: int  # samples in the mean: the infinite ones are not among them unless all are infinite
    interval: Interval | None  # None for fewer than two finite samples: one sample has no spread
    infinite: int = (
        0  # samples left out of the mean because they are infinite (identical pictures have PSNR inf)
    )


def bootstrap_mean(
    values: npt.ArrayLike,
    *,
    level: float = DEFAULT_LEVEL,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of one number per sample with a percentile bootstrap interval.

    Args:
        values: (n,) one number per sample. Infinite ones (the PSNR of identical pictures) are counted and
            left out of the mean; when every value is the same infinity, that is the mean.
        level: share of the resampled means the interval holds, in (0, 1).
        resamples: how many times n samples are drawn with replacement.
        seed: of the draws.

    Returns:
        The mean of the finite values, how many they are, and its interval.

    Raises:
        DataError: `values` is empty, has a NaN, or holds both infinities and nothing finite.
        ShapeError: `values` has more than one axis.
        SettingsError: `level` or `resamples` is out of range.

    Source:
        Efron 1979, percentile interval: the (1 - level) / 2 quantiles of the resampled means.
    """
    check_bootstrap(level, resamples)
    array = np.asarray(values, dtype=np.float64)  # (n,)
    if array.ndim != 1:
        raise ShapeError(f"values must be one number per sample, (n,), got shape {array.shape}")
    if array.size == 0:
        raise DataError("values is empty: a mean needs at least one sample")
    if np.isnan(array).any():
        raise DataError(
            f"{np.isnan(array).sum()} of {array.size} values are NaN: find out which samples failed"
        )

    finite = array[np.isfinite(array)]
    infinite = array.size - finite.size
    if finite.size == 0:
        if not (array == array[0]).all():
            raise DataError("values holds both +inf and -inf and nothing finite: they have no mean")
        return Estimate(value=float(array[0]), n=array.size, interval=None, infinite=infinite)
    mean = float(finite.mean())
    if finite.size == 1:
        return Estimate(value=mean, n=1, interval=None, infinite=infinite)
    means = _resampled_means(finite, resamples, np.random.default_rng(seed))  # (resamples,)
    low, high = _quantiles(means, level)
    interval = Interval(
        low=low, high=high, level=level, resamples=resamples, method="samples drawn again, percentiles"
    )
    return Estimate(value=mean, n=finite.size, interval=interval, infinite=infinite)


def centred_bootstrap(
    value: float,
    statistic: Callable[[np.random.Generator], float],
    *,
    minimum: float,
    maximum: float,
    level: float,
    resamples: int,
    seed: int,
    drawn: str,
) -> Interval:
    """Interval of a statistic that its own resampling shifts, such as FID.

    Drawing n samples with replacement leaves about 63% distinct ones, so a statistic biased by 1/n comes out
    shifted on every draw and plain percentiles may not even hold `value`. The resampled statistics are moved
    by their mean distance to `value`, which keeps the spread and removes that shift. The bias of `value`
    itself stays in it.

    Args:
        value: the statistic of the samples as they are.
        statistic: draws its samples again with the generator and returns the statistic.
        minimum: smallest possible statistic; the interval is clipped to it.
        maximum: largest possible statistic; the interval is clipped to it.
        level: share of the moved statistics the interval holds.
        resamples: how many draws.
        seed: of the draws.
        drawn: what is drawn again, for `Interval.method`.

    Returns:
        The interval, within [minimum, maximum].

    Raises:
        SettingsError: `level` or `resamples` is out of range.
    """
    check_bootstrap(level, resamples)
    generator = np.random.default_rng(seed)
    values = np.array([statistic(generator) for _ in range(resamples)])  # (resamples,)
    low, high = _quantiles(values - values.mean() + value, level)
    return Interval(
        low=min(max(low, minimum), maximum),
        high=min(max(high, minimum), maximum),
        level=level,
        resamples=resamples,
        method=f"{drawn} drawn again, percentiles centred on the value",
    )


def check_bootstrap(level: float, resamples: int) -> None:
    """Refuse a level outside (0, 1) and fewer than 2 resamples.

    Raises:
        SettingsError: either is out of range.
    """
    if not 0.0 < level < 1.0:
        raise SettingsError(f"level must be between 0 and 1, such as 0.95, got {level}")
    if resamples < 2:
        raise SettingsError(f"resamples must be at least 2, got {resamples}")


def _resampled_means(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Means of `resamples` draws of as many values, a block of draws at a time."""
    n = values.size
    block = max(1, _BLOCK_VALUES // n)
    parts = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        parts.append(values[generator.integers(n, size=(rows, n))].mean(axis=1))  # (rows,)
    return np.concatenate(parts)


def _quantiles(values: Array, level: float) -> tuple[float, float]:
    """The two ends that leave (1 - level) / 2 of the values outside on each side."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
