"""Distributional metrics: do two sets of pictures look alike as sets, judged by an encoder's features?

They say nothing about whether a picture is still the picture of its seed: a quantized model can have a
lower FID than its teacher. Read them beside `metrics`, which is paired. The features are of the project's
own encoder unless you give others, so the numbers are not comparable with published ones on Inception
features.

All arithmetic is float64. Intervals come from drawing the samples again (`intervals.centred_bootstrap`);
FID and the inception score are biased by about 1/n, and the interval does not remove that bias: compare at
equal n only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import rel_entr
from torchmetrics.image.fid import FrechetInceptionDistance

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.intervals import DEFAULT_LEVEL, Array, Interval, centred_bootstrap

FRECHET_RESAMPLES = 100  # each costs one covariance and one eigendecomposition a side
SCORE_RESAMPLES = 200
SCORE_SPLITS = 10  # as Salimans et al. 2016
_ROW_SUM_TOLERANCE = 1e-3  # of class probabilities, which may come from float16


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionalResult:
    """One distributional metric, with what is needed to believe it or not."""

    name: str  # "FID", "sFID", "inception score", "precision", "recall", "KID"
    value: float
    n: int  # candidate samples
    n_reference: int | None  # reference samples; None for the inception score, which has no reference
    interval: Interval | None
    warning: str | None = None  # one or more sentences to show beside the value


def frechet_distance(
    reference: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    name: str = "FID",
    paired: bool = False,
    teacher: float | None = None,
    level: float = DEFAULT_LEVEL,
    resamples: int = FRECHET_RESAMPLES,
    seed: int = 0,
) -> DistributionalResult:
    """Squared Frechet distance of two feature sets as Gaussians: FID on pooled features, sFID on spatial.

    Constant features are fine: they have no covariance and only the means count. With no more samples than
    features the covariance is singular; the distance exists, is biased upwards, and the result carries a
    warning.

    Args:
        reference: (n, d) features of the reference pictures.
        candidate: (m, d) features of the candidate's.
        name: what to call it, "FID" or "sFID".
        paired: row i of both comes from one seed (n == m): they are drawn again together.
        teacher: the full-precision model's distance to the same reference; a lower one gets a warning.
        level: share of the resampled distances in the interval.
        resamples: how many times the samples are drawn again.
        seed: of the draws.

    Returns:
        ||mu1 - mu2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with 1/(n-1) covariances, at least 0, by torchmetrics.

    Raises:
        ShapeError: not (n, d) and (m, d), or paired sets of different sizes.
        DataError: fewer than two samples a side, NaN or infinite features.
        SettingsError: `level` or `resamples` is out of range.

    Source:
        Heusel et al. 2017; sFID: Nash et al. 2021, on the spatial features of an intermediate layer.
    """
    a, b = check_pair(reference, candidate, minimum=2, paired=paired)

    def resampled(generator: np.random.Generator) -> float:
        rows_a = generator.integers(len(a), size=len(a))
        rows_b = rows_a if paired else generator.integers(len(b), size=len(b))
        return _fast_distance(a[rows_a], b[rows_b])

    value = _torchmetrics_distance(a, b)
    interval = centred_bootstrap(
        value,
        resampled,
        minimum=0.0,
        maximum=np.inf,
        level=level,
        resamples=resamples,
        seed=seed,
        drawn="pairs of samples" if paired else "samples of both sets",
    )
    return DistributionalResult(
        name=name,
        value=value,
        n=len(b),
        n_reference=len(a),
        interval=interval,
        warning=_frechet_warning(name, value, min(len(a), len(b)), a.shape[1], teacher),
    )


def inception_score(
    probabilities: npt.ArrayLike,
    *,
    splits: int = SCORE_SPLITS,
    level: float = DEFAULT_LEVEL,
    resamples: int = SCORE_RESAMPLES,
    seed: int = 0,
) -> DistributionalResult:
    """Inception score of class probabilities: exp of the mean KL(p(y|x) || p(y)), mean over random splits.

    The samples are shuffled with `seed` first: sets ordered by class would otherwise have splits of one
    class.

    Args:
        probabilities: (n, K) class probabilities of the candidate's pictures; every row sums to 1.
        splits: parts the samples are cut into, of sizes that differ by at most one.
        level: share of the resampled scores in the interval.
        resamples: how many times the samples are drawn again.
        seed: of the shuffle and the draws.

    Returns:
        The score, within [1, K]: K when every picture is surely of one class and the classes are balanced.

    Raises:
        ShapeError: `probabilities` is not (n, K).
        DataError: fewer samples than splits, NaN, or rows that are not probabilities.
        SettingsError: `splits`, `level` or `resamples` is out of range.

    Source:
        Salimans et al. 2016. torchmetrics computes the same but shuffles with torch's global generator.
    """
    if splits < 1:
        raise SettingsError(f"splits must be at least 1, got {splits}")
    p = check_features("probabilities", probabilities, minimum=splits)
    if p.min() < 0.0 or np.abs(p.sum(axis=1) - 1.0).max() > _ROW_SUM_TOLERANCE:
        raise DataError(
            "probabilities must be at least 0 and sum to 1 in every row: apply softmax to logits first"
        )

    def resampled(generator: np.random.Generator) -> float:
        return _mean_split_score(p[generator.integers(len(p), size=len(p))], splits)

    value = _mean_split_score(p[np.random.default_rng(seed).permutation(len(p))], splits)
    interval = centred_bootstrap(
        value,
        resampled,
        minimum=1.0,
        maximum=float(p.shape[1]),
        level=level,
        resamples=resamples,
        seed=seed,
        drawn="samples",
    )
    return DistributionalResult(
        name="inception score", value=value, n=len(p), n_reference=None, interval=interval
    )


def check_features(name: str, features: npt.ArrayLike, *, minimum: int) -> Array:
    """Return `features` as float64 (n, d), or say what is wrong with them.

    Args:
        name: what the error message calls them.
        features: (n, d) array or CPU tensor.
        minimum: fewest samples allowed.

    Returns:
        (n, d) float64.

    Raises:
        ShapeError: not two axes, or no features.
        DataError: fewer than `minimum` samples, NaN or infinite values.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ShapeError(f"{name} must be (n, d), got shape {array.shape}")
    if len(array) < minimum:
        raise DataError(f"{name} has {len(array)} samples; at least {minimum} are needed")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DataError(f"{name} has NaN or infinite features, first in sample {first}")
    return array


def check_pair(
    reference: npt.ArrayLike, candidate: npt.ArrayLike, *, minimum: int, paired: bool
) -> tuple[Array, Array]:
    """Check two feature sets of one width; see `check_features`.

    Raises:
        ShapeError: the widths differ, or the sizes of paired sets do.
        DataError: too few samples, NaN or infinite values.
    """
    a = check_features("reference", reference, minimum=minimum)
    b = check_features("candidate", candidate, minimum=minimum)
    if a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"reference has {a.shape[1]} features and candidate {b.shape[1]}: use one encoder for both"
        )
    if paired and len(a) != len(b):
        raise ShapeError(f"paired sets must have one size, got {len(a)} and {len(b)} samples")
    return a, b


class _FeaturesAsPictures(torch.nn.Module):
    """Lets torchmetrics' FID, which wants an encoder of pictures, take features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def _torchmetrics_distance(a: Array, b: Array) -> float:
    # The distance does not see a common shift; taking it out keeps the metric's raw second moments accurate.
    shift = a.mean(axis=0)
    metric: Any = FrechetInceptionDistance(feature=_FeaturesAsPictures(a.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a - shift), real=True)
    metric.update(torch.from_numpy(b - shift), real=False)
    return max(float(metric.compute()), 0.0)


def _fast_distance(a: Array, b: Array) -> float:
    """Compute the same distance with symmetric eigendecompositions: several times faster, for resampling."""
    difference = a.mean(axis=0) - b.mean(axis=0)  # (d,)
    cov_a, cov_b = _covariance(a), _covariance(b)  # (d, d)
    variances, axes = np.linalg.eigh(cov_a)
    root = axes * np.sqrt(np.clip(variances, 0.0, None))  # (d, d), cov_a == root @ root.T
    # root.T cov_b root is symmetric with the eigenvalues of cov_a cov_b; rounding may leave some below zero
    product = np.clip(np.linalg.eigvalsh(root.T @ cov_b @ root), 0.0, None)  # (d,)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2.0 * np.sqrt(product).sum()
    return max(float(difference @ difference + trace), 0.0)


def _covariance(features: Array) -> Array:
    centred = features - features.mean(axis=0)  # (n, d)
    covariance: Array = centred.T @ centred / (len(features) - 1)
    return covariance


def _mean_split_score(probabilities: Array, splits: int) -> float:
    scores = []
    for part in np.array_split(probabilities, splits):
        divergence = rel_entr(part, part.mean(axis=0)).sum(axis=1)  # (n / splits,), nats
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores))


def _frechet_warning(name: str, value: float, n: int, features: int, teacher: float | None) -> str | None:
    sentences = []
    if n <= features:
        sentences.append(
            f"{n} samples for {features} features: the covariance is singular and {name} far too high; "
            "compare only at equal n."
        )
    if teacher is not None and value < teacher:
        sentences.append(
            f"Lower than full precision's own {name} ({teacher:.3g}). That is not better fidelity: "
            "look at the paired distances."
        )
    return " ".join(sentences) or None
