"""Two trajectories step by step: where the error comes in, and how it grows.

At every step a quantized network errs twice over: on the full-precision latent its prediction already
differs (the injected error), and its own latent has drifted by then, which changes the prediction further
(the accumulated error). At the first step both trajectories hold the same noise, so there the two are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mpqdm_core import metrics
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.families import FAMILIES
from mpqdm_core.intervals import Array, Estimate, bootstrap_mean
from mpqdm_core.progress import Report, silent
from mpqdm_core.sampling import Samples, checked_labels
from mpqdm_core.tape import Tape, WayEnded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrajectoryComparison:
    """Per step and sample, (T, N) float64; what was not recorded is None.

    Decibels are 10 log10(||reference||^2 / ||difference||^2), +inf where there is no difference.
    """

    timesteps: NDArray[np.int64]  # (T,), falling
    latent_cosine: Array  # of x_t
    latent_snr_db: Array  # of x_t
    accumulated_snr_db: Array | None  # of the prediction, each network on its own x_t
    accumulated_mse: Array | None  # mean squared difference of the same
    injected_snr_db: Array | None  # of the prediction, both networks on the reference's x_t
    injected_mse: Array | None  # mean squared difference of the same
    x0_snr_db: Array | None  # of the final latent as predicted at the step


def step_means(values: Array, *, seed: int = 0) -> tuple[Estimate, ...]:
    """Mean over samples at every step of (T, N) values, with intervals; see `bootstrap_mean`."""
    return tuple(bootstrap_mean(row, seed=seed) for row in values)


def compare_trajectories(
    reference: Samples, candidate: Samples, injected: NDArray[np.float32] | None = None
) -> TrajectoryComparison | None:
    """Compare two recorded trajectories of the same seeds.

    Args:
        reference: full precision, drawn with record="latents" or "all".
        candidate: quantized, with the same seeds, labels and settings.
        injected: (T, N, C, h, w) from `injected_predictions`; needs the reference's predictions.

    Returns:
        The comparison, or None when either trajectory was not recorded.

    Raises:
        SettingsError: the steps differ, or `injected` does not belong to the reference.
        DataError: a trajectory has NaN or infinite values.
    """
    if injected is not None and (
        reference.predictions is None or injected.shape != reference.predictions.shape
    ):
        had = "none" if reference.predictions is None else str(reference.predictions.shape)
        raise SettingsError(
            f"injected predictions have shape {injected.shape} and the reference's predictions {had}"
        )
    if reference.trajectory is None or candidate.trajectory is None:
        return None
    if not np.array_equal(reference.timesteps, candidate.timesteps):
        raise SettingsError(
            f"the trajectories have other timesteps: {reference.timesteps} and {candidate.timesteps}"
        )
    exact, drifted = reference.predictions, candidate.predictions
    return TrajectoryComparison(
        timesteps=reference.timesteps,
        latent_cosine=_by_step(metrics.cosine, reference.trajectory, candidate.trajectory),
        latent_snr_db=_by_step(metrics.sqnr_db, reference.trajectory, candidate.trajectory),
        accumulated_snr_db=_if_recorded(metrics.sqnr_db, exact, drifted),
        accumulated_mse=_if_recorded(metrics.mse, exact, drifted),
        injected_snr_db=_if_recorded(metrics.sqnr_db, exact, injected),
        injected_mse=_if_recorded(metrics.mse, exact, injected),
        x0_snr_db=_if_recorded(metrics.sqnr_db, reference.x0, candidate.x0),
    )


@torch.no_grad()
def injected_predictions(
    denoiser: Denoiser, reference: Samples, report: Report = silent, *, batch_size: int = 64
) -> NDArray[np.float32]:
    """Predictions of a (quantized) network on the latents that full precision went through.

    The pipeline draws as it does otherwise, guidance included, but steps start where full precision was.

    Args:
        denoiser: usually quantized; of the family and shape of the reference's.
        reference: drawn with record="latents" or "all".
        report: called before the first and after every call of the network; may raise `Cancelled`.
        batch_size: samples at once.

    Returns:
        (T, N, C, h, w) float32, after guidance: comparable with `reference.predictions`.

    Raises:
        SettingsError: the reference has no trajectory, or its labels, timesteps or shape do not fit.
    """
    trajectory = reference.trajectory
    if trajectory is None:
        raise SettingsError('the reference has no trajectory: draw it with record="latents" or "all"')
    if trajectory.shape[2:] != denoiser.latent_shape:
        raise SettingsError(
            f"{denoiser.name} takes latents {denoiser.latent_shape}, the reference has {trajectory.shape[2:]}"
        )
    conditional = FAMILIES[denoiser.family].conditional
    if conditional != (reference.labels is not None):
        raise SettingsError(
            f"{denoiser.name} {'needs' if conditional else 'takes no'} labels, unlike the reference"
        )
    labels = checked_labels(
        denoiser, None if reference.labels is None else reference.labels.tolist(), len(reference.seeds)
    )
    starts = range(0, trajectory.shape[1], batch_size)
    total = len(reference.timesteps) * len(starts)
    message = "predicting on the full-precision trajectory"
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        report(done, total, message)

    report(done, total, message)
    tapes = []
    for start in starts:
        rows = slice(start, start + batch_size)
        tape = Tape(record="all", advance=advance, given=trajectory[:, rows])
        with suppress(WayEnded):
            tape.draw(
                denoiser,
                None if labels is None else labels[rows],
                reference.seeds[rows].tolist(),
                reference.settings,
            )
        tapes.append(tape)
    if tapes[0].timesteps != reference.timesteps.tolist():
        raise SettingsError(
            f"{denoiser.name} is drawn at timesteps {tapes[0].timesteps}, the reference at "
            f"{reference.timesteps.tolist()}: draw both with one scheduler"
        )
    return np.concatenate([np.stack(tape.predictions) for tape in tapes], axis=1)


def _by_step(
    metric: Callable[[NDArray[np.float32], NDArray[np.float32]], Array],
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
) -> Array:
    """Apply a metric to every step and sample of (T, N, ...): (T, N)."""
    return np.stack([metric(a, b) for a, b in zip(reference, candidate, strict=True)])


def _if_recorded(
    metric: Callable[[NDArray[np.float32], NDArray[np.float32]], Array],
    reference: NDArray[np.float32] | None,
    candidate: NDArray[np.float32] | None,
) -> Array | None:
    if reference is None or candidate is None:
        return None
    return _by_step(metric, reference, candidate)
