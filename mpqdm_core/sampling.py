"""Drawing pictures, and writing down the way they took.

The model's own diffusers pipeline does all the work, and `Tape` listens to it. The pipeline and the scheduler
of a call are made for that call, so two callers who sample one model at the same moment do not meet, and an
interrupted call leaves nothing behind on the shared network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.families import FAMILIES
from mpqdm_core.progress import Report, silent
from mpqdm_core.schedules import step_count, takes
from mpqdm_core.tape import Record, Tape
from mpqdm_core.timesteps import mapping_note

RECORDS: tuple[Record, ...] = ("none", "latents", "all")
MAX_SEED = 2**63 - 1  # the largest that fits the int64 array of seeds
UNGUIDED = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Pictures and, if asked for, the trajectories that led to them."""

    images: NDArray[np.uint8]  # (N, H, W, 3)
    latents: NDArray[np.float32]  # (N, C, h, w), final; for a pixel-space model, the picture before clamping
    seeds: NDArray[np.int64]  # (N,)
    labels: NDArray[np.int64] | None  # (N,); None: unconditional
    settings: SamplerSettings
    timesteps: NDArray[np.int64]  # (T,), falling
    trajectory: (
        NDArray[np.float32] | None
    )  # (T, N, C, h, w): x_t as it goes into step t; the first is the noise
    predictions: NDArray[np.float32] | None  # (T, N, C, h, w): the network's output after guidance
    x0: NDArray[np.float32] | None  # (T, N, C, h, w): the final latent as predicted at step t
    notes: tuple[str, ...] = ()  # sentences on what the sampler had to borrow

    @property
    def content_hash(self) -> str:
        """Hash of pictures, latents and seeds: 64 hex digits."""
        digest = hashlib.sha256()
        for array in (self.images, self.latents, self.seeds):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def sample(
    denoiser: Denoiser,
    *,
    labels: Sequence[int] | None,
    seeds: Sequence[int],
    settings: SamplerSettings | None = None,
    batch_size: int = 64,
    record: Record = "none",
    report: Report = silent,
) -> Samples:
    """Draw one picture per seed; a picture depends on its seed and its label, not on its batch.

    Args:
        denoiser: full precision or quantized.
        labels: one class per seed, for a model of prompts the number of one; None for a model without.
        seeds: each starts a generator of its own, which gives the noise of the start and of every step.
        settings: None takes the denoiser's own.
        batch_size: pictures at a time; changes time and memory, and the result by rounding only.
        record: "latents" keeps the trajectory, "all" also predictions and predicted final latents.
        report: called before the first and after every step of every batch; may raise `Cancelled`.

    Returns:
        Arrays on the CPU. A picture that is not finite is black, its latent stays as it is.

    Raises:
        SettingsError: labels, seeds, batch size, record or settings are not possible with this model.
        Cancelled: raised by `report`; the denoiser is as before.
    """
    settings = settings or denoiser.sampler
    label_list = checked_labels(denoiser, labels, len(seeds))
    _check(denoiser, seeds, settings, batch_size, record)
    starts = range(0, len(seeds), batch_size)
    total = len(starts) * step_count(denoiser.pipeline.scheduler, settings.num_inference_steps)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        report(done, total, f"drawing {len(seeds)} pictures")

    report(done, total, f"drawing {len(seeds)} pictures")
    tapes = []
    images = []
    for start in starts:
        batch = slice(start, start + batch_size)
        tape = Tape(record=record, advance=advance)
        batch_labels = None if label_list is None else label_list[batch]
        images.append(to_uint8(tape.draw(denoiser, batch_labels, list(seeds[batch]), settings)))
        tapes.append(tape)
    timesteps = tapes[0].timesteps
    note = mapping_note(_range_timesteps(denoiser), timesteps)
    return Samples(
        images=np.concatenate(images),
        latents=np.concatenate([tape.final for tape in tapes]),
        seeds=np.asarray(seeds, dtype=np.int64),
        labels=None if label_list is None else np.asarray(label_list, dtype=np.int64),
        settings=settings,
        timesteps=np.asarray(timesteps, dtype=np.int64),
        trajectory=_stacked([tape.inputs for tape in tapes]),
        predictions=_stacked([tape.predictions for tape in tapes]),
        x0=_stacked([tape.finals for tape in tapes]),
        notes=(note,) if note else (),
    )


def decode(
    denoiser: Denoiser, latents: NDArray[np.float32] | Tensor, batch_size: int = 64
) -> NDArray[np.uint8]:
    """Turn latents (N, C, h, w) into pictures (N, H, W, 3).

    Raises:
        ShapeError: the latents do not have the denoiser's shape.
    """
    tensor = torch.as_tensor(latents)
    if tensor.ndim != 4 or tuple(tensor.shape[1:]) != denoiser.latent_shape or len(tensor) == 0:
        raise ShapeError(f"latents must be (N, {denoiser.latent_shape}), got shape {tuple(tensor.shape)}")
    parameter = next(denoiser.network.parameters())
    pictures = []
    with torch.no_grad():
        for start in range(0, len(tensor), batch_size):
            latent = tensor[start : start + batch_size].to(parameter.device, parameter.dtype)
            picture = FAMILIES[denoiser.family].decode(denoiser.pipeline, latent)  # (n, channels, H, W)
            pictures.append(to_uint8(picture.permute(0, 2, 3, 1).float().cpu().numpy()))
    return np.concatenate(pictures)


def to_uint8(pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round (N, H, W, 1 or 3) in [0, 1] to (N, H, W, 3) in 0..255; what is not a number becomes 0."""
    rounded = np.round(np.nan_to_num(pictures, nan=0.0) * 255).astype(np.uint8)
    return np.repeat(rounded, 3, axis=-1) if rounded.shape[-1] == 1 else rounded


def _stacked(batches: list[list[NDArray[np.float32]]]) -> NDArray[np.float32] | None:
    """Join the steps of every batch into (T, N, C, h, w); None where nothing was recorded."""
    if not batches[0]:
        return None
    return np.concatenate([np.stack(steps) for steps in batches], axis=1)


def _range_timesteps(denoiser: Denoiser) -> tuple[int, ...]:
    """The timesteps that a quantized network has activation ranges for; none for full precision."""
    for module in denoiser.network.modules():
        if isinstance(module, ActivationQuantizer) and module.clock is not None:
            return module.clock.timesteps
    return ()


def checked_labels(denoiser: Denoiser, labels: Sequence[int] | None, count: int) -> list[int] | None:
    """One label for each of `count` seeds, or None for a model without classes.

    Raises:
        SettingsError: they do not suit the model.
    """
    if denoiser.num_classes is None:
        if labels is not None:
            raise SettingsError(f"{denoiser.name} has no classes: labels must be None")
        return None
    if labels is None or len(labels) != count:
        got = "none" if labels is None else str(len(labels))
        raise SettingsError(f"{denoiser.name} needs one label per seed, {count}, got {got}")
    wrong = [label for label in labels if not 0 <= label < denoiser.num_classes]
    if wrong:
        last = denoiser.num_classes - 1
        raise SettingsError(f"labels of {denoiser.name} must be in 0..{last}, got {wrong[0]}")
    return [int(label) for label in labels]


def _check(
    denoiser: Denoiser, seeds: Sequence[int], settings: SamplerSettings, batch_size: int, record: str
) -> None:
    if len(seeds) == 0:
        raise SettingsError("seeds must hold at least one seed, got none")
    wrong = [seed for seed in seeds if not 0 <= seed <= MAX_SEED]
    if wrong:
        raise SettingsError(f"a seed must be in 0..{MAX_SEED}, got {wrong[0]}")
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
    if record not in RECORDS:
        raise SettingsError(f"record must be one of {', '.join(RECORDS)}, got {record!r}")
    if denoiser.num_classes is None and settings.guidance_scale != UNGUIDED:
        raise SettingsError(
            f"{denoiser.name} has no classes: guidance_scale must be 1.0, got {settings.guidance_scale}"
        )
    scheduler = denoiser.pipeline.scheduler
    if settings.eta != 0.0 and not takes(scheduler, "eta"):
        raise SettingsError(f"a {type(scheduler).__name__} takes no eta: it must be 0, got {settings.eta}")
    longest = int(scheduler.config.num_train_timesteps)
    if settings.num_inference_steps > longest:
        raise SettingsError(
            f"num_inference_steps must be in 1..{longest}, got {settings.num_inference_steps}"
        )
