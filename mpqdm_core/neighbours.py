"""Precision and recall of a set of pictures by nearest neighbours, and the kernel distance KID.

Both look at pairs of feature vectors, where FID looks at means and covariances only: they need no Gaussian.
All arithmetic is float64; distances are exact (no inner-product shortcut), so that copies of a picture have
distance 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import norm

from mpqdm_core.distribution import DistributionalResult, check_pair
from mpqdm_core.errors import SettingsError
from mpqdm_core.intervals import (
    DEFAULT_LEVEL,
    DEFAULT_RESAMPLES,
    Array,
    Interval,
    bootstrap_mean,
    check_bootstrap,
)

NEIGHBOURS = 3  # k of Kynkaanniemi et al. 2019
KERNEL_BLOCKS = 20  # parts left out one at a time for the interval of KID
_ROWS = 512  # samples whose distances to all others are held at once: 20 MB for 5,000 samples


def precision_recall(
    reference: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    neighbours: int = NEIGHBOURS,
    level: float = DEFAULT_LEVEL,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[DistributionalResult, DistributionalResult]:
    """Precision and recall: which share of one set lies on the manifold of the other.

    A manifold is the union of balls around a set's samples, each reaching its k-th nearest neighbour in
    that set; the border belongs to it. Copies are neighbours at distance 0, so a set of copies has balls
    without extent. The intervals draw the samples that are looked up again and keep the manifolds: drawing
    those again would put copies into them and shrink their balls.

    Args:
        reference: (n, d) features of the reference pictures.
        candidate: (m, d) features of the candidate's.
        neighbours: k.
        level: share of the resampled values in the intervals.
        resamples: how many times the samples are drawn again.
        seed: of the draws.

    Returns:
        Precision (candidate samples on the reference's manifold: quality) and recall (reference samples on
        the candidate's manifold: variety), both in [0, 1].

    Raises:
        ShapeError: not (n, d) and (m, d).
        DataError: no more samples than neighbours on a side, NaN or infinite features.
        SettingsError: `neighbours`, `level` or `resamples` is out of range.

    Source:
        Kynkaanniemi et al. 2019.
    """
    if neighbours < 1:
        raise SettingsError(f"neighbours must be at least 1, got {neighbours}")
    a, b = check_pair(reference, candidate, minimum=neighbours + 1, paired=False)
    reach_a, reach_b = _reach(a, neighbours), _reach(b, neighbours)  # (n,), (m,)
    inside_a = _inside(b, a, reach_a)  # (m,) candidate samples on the reference's manifold
    inside_b = _inside(a, b, reach_b)  # (n,) reference samples on the candidate's manifold
    precision = bootstrap_mean(inside_a, level=level, resamples=resamples, seed=seed)
    recall = bootstrap_mean(inside_b, level=level, resamples=resamples, seed=seed)
    results = [
        DistributionalResult(
            name=name, value=estimate.value, n=len(b), n_reference=len(a), interval=estimate.interval
        )
        for name, estimate in (("precision", precision), ("recall", recall))
    ]
    return results[0], results[1]


def kernel_distance(
    reference: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    paired: bool = False,
    level: float = DEFAULT_LEVEL,
    blocks: int = KERNEL_BLOCKS,
    seed: int = 0,
) -> DistributionalResult:
    """KID: the unbiased squared kernel distance (x.y / d + 1)^3, over all pairs of samples.

    Unbiased, so it may be slightly negative and compares sets of different sizes, which FID cannot. The
    usual mean over 100 subsets of 1,000 estimates the same number with more noise. The interval is a block
    jackknife: the samples are cut at random into blocks, each is left out once, and the spread gives a
    normal interval.

    Args:
        reference: (n, d) features of the reference pictures.
        candidate: (m, d) features of the candidate's.
        paired: row i of both comes from one seed (n == m): they are left out together.
        level: share of the normal distribution in the interval.
        blocks: how many blocks; fewer when a set is too small for two samples outside every block.
        seed: of the cut.

    Returns:
        The distance; `interval.resamples` is the number of blocks.

    Raises:
        ShapeError: not (n, d) and (m, d), or paired sets of different sizes.
        DataError: fewer than 4 samples a side, NaN or infinite features.
        SettingsError: `level` or `blocks` is out of range.

    Source:
        Binkowski et al. 2018; the block jackknife of a U-statistic: Arvesen 1969.
    """
    check_bootstrap(level, blocks)
    a, b = check_pair(reference, candidate, minimum=4, paired=paired)
    generator = np.random.default_rng(seed)
    order_a = generator.permutation(len(a))
    order_b = order_a if paired else generator.permutation(len(b))
    count = min(blocks, len(a), len(b))
    parts_a, parts_b = np.array_split(a[order_a], count), np.array_split(b[order_b], count)
    sums = _KernelSums(parts_a, parts_b)
    everything = np.ones(count, dtype=bool)
    value = sums.distance(everything, everything)
    left_out = ~np.eye(count, dtype=bool)  # row i keeps all blocks but i
    if paired:
        variance = _jackknife_variance([sums.distance(keep, keep) for keep in left_out])
    else:
        variance = _jackknife_variance([sums.distance(keep, everything) for keep in left_out])
        variance += _jackknife_variance([sums.distance(everything, keep) for keep in left_out])
    half = float(norm.ppf((1.0 + level) / 2.0) * np.sqrt(variance))
    interval = Interval(
        low=value - half,
        high=value + half,
        level=level,
        resamples=count,
        method=f"{count} blocks of {'pairs' if paired else 'samples'} left out in turn, normal interval",
    )
    return DistributionalResult(name="KID", value=value, n=len(b), n_reference=len(a), interval=interval)


class _KernelSums:
    """Sums of the kernel over pairs of blocks: leaving a block out is then arithmetic on small tables."""

    def __init__(self, parts_a: list[Array], parts_b: list[Array]) -> None:
        self.sizes_a = np.array([len(part) for part in parts_a])
        self.sizes_b = np.array([len(part) for part in parts_b])
        self.aa = _block_sums(parts_a, parts_a)  # (blocks, blocks)
        self.bb = _block_sums(parts_b, parts_b)
        self.ab = _block_sums(parts_a, parts_b)
        np.fill_diagonal(self.aa, self.aa.diagonal() - [_kernel_with_itself(part) for part in parts_a])
        np.fill_diagonal(self.bb, self.bb.diagonal() - [_kernel_with_itself(part) for part in parts_b])

    def distance(self, keep_a: npt.NDArray[np.bool_], keep_b: npt.NDArray[np.bool_]) -> float:
        """Unbiased distance of the kept blocks."""
        n, m = self.sizes_a[keep_a].sum(), self.sizes_b[keep_b].sum()
        within_a = self.aa[np.ix_(keep_a, keep_a)].sum() / (n * (n - 1))
        within_b = self.bb[np.ix_(keep_b, keep_b)].sum() / (m * (m - 1))
        across = self.ab[np.ix_(keep_a, keep_b)].sum() / (n * m)
        return float(within_a + within_b - 2.0 * across)


def _block_sums(left: list[Array], right: list[Array]) -> Array:
    width = left[0].shape[1]
    return np.array([[((x @ y.T / width + 1.0) ** 3).sum() for y in right] for x in left])


def _kernel_with_itself(part: Array) -> float:
    return float((((part * part).sum(axis=1) / part.shape[1] + 1.0) ** 3).sum())


def _jackknife_variance(values: list[float]) -> float:
    count = len(values)
    return float((count - 1) / count * np.square(np.array(values) - np.mean(values)).sum())


def _reach(features: Array, neighbours: int) -> Array:
    """Distance of every sample to its k-th nearest neighbour, itself not counted: (n,)."""
    parts = []
    for start in range(0, len(features), _ROWS):
        distances = cdist(features[start : start + _ROWS], features)  # (rows, n)
        parts.append(np.partition(distances, neighbours, axis=1)[:, neighbours])  # 0 is the sample itself
    return np.concatenate(parts)


def _inside(points: Array, centres: Array, reach: Array) -> Array:
    """1 for every point inside at least one ball, else 0: (points,) float64."""
    parts = []
    for start in range(0, len(points), _ROWS):
        distances = cdist(points[start : start + _ROWS], centres)  # (rows, centres)
        parts.append((distances <= reach).any(axis=1))
    return np.concatenate(parts).astype(np.float64)
