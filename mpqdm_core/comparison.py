"""What quantization did to the pictures: paired distances at equal seeds, trajectories, and sets as sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpqdm_core import metrics
from mpqdm_core.distribution import (
    SCORE_SPLITS,
    DistributionalResult,
    frechet_distance,
    inception_score,
)
from mpqdm_core.encoding import EncodedSet, Encoder, encode
from mpqdm_core.errors import SettingsError
from mpqdm_core.intervals import Array, Estimate, bootstrap_mean
from mpqdm_core.neighbours import kernel_distance, precision_recall
from mpqdm_core.progress import Report, silent
from mpqdm_core.sampling import Samples
from mpqdm_core.trajectory import TrajectoryComparison, compare_trajectories, injected_predictions

__all__ = [
    "Comparison",
    "DistributionComparison",
    "PairedMetric",
    "TrajectoryComparison",
    "compare",
    "injected_predictions",
]

SMALLEST_SET = SCORE_SPLITS  # samples; the inception score cuts the set into that many parts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedMetric:
    """One number per sample and their mean."""

    values: Array  # (N,)
    mean: Estimate
    unit: str  # "dB", or "" for a plain number
    higher_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistributionComparison:
    """Sets as sets, on encoder features."""

    fid: DistributionalResult  # candidate to reference, as are the next four
    sfid: DistributionalResult
    kid: DistributionalResult
    precision: DistributionalResult
    recall: DistributionalResult
    inception_score: DistributionalResult  # of the candidate
    inception_score_reference: DistributionalResult
    class_accuracy: Estimate | None  # share the encoder recognises as the label; None without labels it knows
    class_accuracy_reference: Estimate | None
    fid_to_real: DistributionalResult | None  # candidate to real pictures; None without real features
    fid_to_real_reference: DistributionalResult | None  # reference to real pictures
    sfid_to_real: DistributionalResult | None
    sfid_to_real_reference: DistributionalResult | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """A candidate beside its reference, drawn from the same seeds."""

    n: int
    seeds: NDArray[np.int64]  # (N,)
    labels: NDArray[np.int64] | None  # (N,)
    image_mse: PairedMetric  # pictures in [0, 1]
    image_psnr_db: PairedMetric
    image_ssim: PairedMetric | None  # None for pictures smaller than its window
    latent_mse: PairedMetric
    latent_snr_db: PairedMetric
    trajectory: TrajectoryComparison | None  # None unless both trajectories were recorded
    distribution: DistributionComparison | None  # None without an encoder or with too few samples
    notes: tuple[str, ...]  # sentences on what is missing and why


def compare(
    reference: Samples,
    candidate: Samples,
    *,
    encoder: Encoder | None = None,
    real_features: EncodedSet | None = None,
    injected: NDArray[np.float32] | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Comparison:
    """Compare pictures of one set of seeds, drawn by two models.

    Args:
        reference: the full-precision model's.
        candidate: the quantized model's, with the same seeds, labels and sampler settings.
        encoder: for the distributional metrics; None leaves them out.
        real_features: the same encoder's features of real pictures; adds FID and sFID to those.
        injected: from `injected_predictions`; adds the injected error to the trajectory.
        seed: of the intervals and of the inception score's shuffle.
        report: called between the parts; may raise `Cancelled`.

    Returns:
        Everything that the samples allow; `notes` says what they do not.

    Raises:
        SettingsError: seeds, labels, settings or shapes differ, or `real_features` come without an encoder.
        DataError: latents or trajectories have NaN or infinite values.
    """
    _check_same_origin(reference, candidate)
    if real_features is not None and encoder is None:
        raise SettingsError("real_features need the encoder that made them: pass encoder too")
    parts = 3 if encoder is None else 5

    report(0, parts, "comparing pictures")
    image_pair = (reference.images, candidate.images)
    latent_pair = (reference.latents, candidate.latents)
    image_mse = _paired(metrics.mse(*image_pair), "", False, seed)
    image_psnr_db = _paired(metrics.psnr_db(*image_pair), "dB", True, seed)
    notes = list(candidate.notes)
    image_ssim = None
    if min(reference.images.shape[1:3]) < metrics.SSIM_WINDOW:
        notes.append(f"SSIM needs pictures of at least {metrics.SSIM_WINDOW} pixels a side.")
    else:
        image_ssim = _paired(metrics.ssim(*image_pair), "", True, seed)
    report(1, parts, "comparing latents")
    latent_mse = _paired(metrics.mse(*latent_pair), "", False, seed)
    latent_snr_db = _paired(metrics.sqnr_db(*latent_pair), "dB", True, seed)
    report(2, parts, "comparing trajectories")
    trajectory = compare_trajectories(reference, candidate, injected)
    if trajectory is None:
        notes.append('Steps are not compared: draw both with record="latents" or "all".')

    distribution = None
    if encoder is not None and len(reference.images) < SMALLEST_SET:
        notes.append(f"Sets are not compared: that needs at least {SMALLEST_SET} samples.")
    elif encoder is not None:
        report(3, parts, "encoding pictures")
        encoded = encode(encoder, reference.images), encode(encoder, candidate.images)
        report(4, parts, "comparing sets")
        distribution = _compare_sets(*encoded, real_features, reference.labels, seed)
    report(parts, parts, "compared")
    return Comparison(
        n=len(reference.images),
        seeds=reference.seeds,
        labels=reference.labels,
        image_mse=image_mse,
        image_psnr_db=image_psnr_db,
        image_ssim=image_ssim,
        latent_mse=latent_mse,
        latent_snr_db=latent_snr_db,
        trajectory=trajectory,
        distribution=distribution,
        notes=tuple(notes),
    )


def _compare_sets(
    reference: EncodedSet,
    candidate: EncodedSet,
    real: EncodedSet | None,
    labels: NDArray[np.int64] | None,
    seed: int,
) -> DistributionComparison:
    precision, recall = precision_recall(reference.features, candidate.features, seed=seed)
    fid_real, fid_real_reference = _to_real("FID", "features", reference, candidate, real, seed)
    sfid_real, sfid_real_reference = _to_real("sFID", "spatial", reference, candidate, real, seed)
    return DistributionComparison(
        fid=frechet_distance(reference.features, candidate.features, paired=True, seed=seed),
        sfid=frechet_distance(reference.spatial, candidate.spatial, name="sFID", paired=True, seed=seed),
        kid=kernel_distance(reference.features, candidate.features, paired=True, seed=seed),
        precision=precision,
        recall=recall,
        inception_score=inception_score(candidate.probabilities, seed=seed),
        inception_score_reference=inception_score(reference.probabilities, seed=seed),
        class_accuracy=_accuracy(candidate, labels, seed),
        class_accuracy_reference=_accuracy(reference, labels, seed),
        fid_to_real=fid_real,
        fid_to_real_reference=fid_real_reference,
        sfid_to_real=sfid_real,
        sfid_to_real_reference=sfid_real_reference,
    )


def _to_real(
    name: str, field: str, reference: EncodedSet, candidate: EncodedSet, real: EncodedSet | None, seed: int
) -> tuple[DistributionalResult, DistributionalResult] | tuple[None, None]:
    """Distance of candidate and of reference to real pictures, warning where the candidate's is lower."""
    if real is None:
        return None, None
    teacher = frechet_distance(getattr(real, field), getattr(reference, field), name=name, seed=seed)
    student = frechet_distance(
        getattr(real, field), getattr(candidate, field), name=name, teacher=teacher.value, seed=seed
    )
    return student, teacher


def _accuracy(encoded: EncodedSet, labels: NDArray[np.int64] | None, seed: int) -> Estimate | None:
    if labels is None or labels.max() >= encoded.probabilities.shape[1]:  # the encoder knows other classes
        return None
    return bootstrap_mean(encoded.probabilities.argmax(axis=1) == labels, seed=seed)


def _paired(values: Array, unit: str, higher_is_better: bool, seed: int) -> PairedMetric:
    mean = bootstrap_mean(values, seed=seed)
    return PairedMetric(values=values, mean=mean, unit=unit, higher_is_better=higher_is_better)


def _check_same_origin(reference: Samples, candidate: Samples) -> None:
    """Refuse samples that did not start from the same noise and wish."""
    for name in ("images", "latents"):
        shapes = getattr(reference, name).shape, getattr(candidate, name).shape
        if shapes[0] != shapes[1]:
            raise SettingsError(f"{name} of reference and candidate have shapes {shapes[0]} and {shapes[1]}")
    if not np.array_equal(reference.seeds, candidate.seeds):
        first = int(np.flatnonzero(reference.seeds != candidate.seeds)[0])
        raise SettingsError(
            f"sample {first} has seed {reference.seeds[first]} in the reference and "
            f"{candidate.seeds[first]} in the candidate: draw both from the same seeds"
        )
    if (reference.labels is None) != (candidate.labels is None):
        raise SettingsError("only one of reference and candidate has labels: draw both from the same labels")
    if reference.labels is not None and candidate.labels is not None:
        differ = np.flatnonzero(reference.labels != candidate.labels)
        if len(differ):
            first = int(differ[0])
            raise SettingsError(
                f"sample {first} has label {reference.labels[first]} in the reference and "
                f"{candidate.labels[first]} in the candidate: draw both from the same labels"
            )
    if reference.settings != candidate.settings:
        raise SettingsError(
            f"the candidate was drawn with {candidate.settings}, the reference with {reference.settings}"
        )
