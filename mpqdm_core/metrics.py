"""Paired metrics: how far a candidate's samples are from the reference's, sample by sample.

Every function takes a reference and a candidate of one shape (N, ...), numpy arrays or tensors on any device,
and returns one float64 number per sample. Elementwise arithmetic is float64, in chunks of samples.

Ranges: uint8 is read as pictures and divided by 255, so its MSE is in units of the range [0, 1]. Floats are
taken as they are: latents and noise may have any range; pictures must say theirs where it matters
(`data_range`). The two sides must be of one kind. NaN and infinite inputs are a DataError: a metric of a
broken sample is not a number.

Identical samples have PSNR and SQNR +inf. `intervals.bootstrap_mean` counts those and leaves them out of the
mean, so that one perfect picture does not hide the rest; when all are identical the mean is +inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.intervals import Array

Values: TypeAlias = npt.NDArray[Any] | torch.Tensor

SSIM_WINDOW = 11  # pixels: the Gaussian window of sigma 1.5 that torchmetrics uses
_CHUNK = 128  # samples turned into float64 at once
_UINT8_PEAK = 255.0


def mse(reference: Values, candidate: Values) -> Array:
    """Mean squared error of every sample, over all its axes.

    Args:
        reference: (N, ...) uint8 (read as [0, 1]) or floats of any range.
        candidate: like `reference`.

    Returns:
        (N,) float64, in squared units of the input (squared [0, 1] for uint8); 0 for identical samples.

    Raises:
        ShapeError: the shapes differ or have fewer than two axes.
        DataError: no samples, NaN or infinite values, or one side is uint8 and the other is not.
    """
    return _per_sample(reference, candidate, lambda a, b: np.square(a - b).mean(axis=1))


def psnr_db(reference: Values, candidate: Values, *, data_range: float = 1.0) -> Array:
    """Peak signal-to-noise ratio of every picture.

    Args:
        reference: (N, ...) pictures, uint8 (read as [0, 1]) or floats.
        candidate: like `reference`.
        data_range: largest minus smallest possible value: 1 for uint8 and floats in [0, 1], 2 for [-1, 1].

    Returns:
        (N,) float64 in dB, 10 log10(data_range^2 / mse); +inf for identical pictures.

    Raises:
        ShapeError: the shapes differ or have fewer than two axes.
        DataError: no samples, NaN or infinite values, or one side is uint8 and the other is not.
        SettingsError: `data_range` is not positive, or not 1 for uint8.
    """
    _check_data_range(reference, data_range)
    error = mse(reference, candidate)  # (N,)
    return _decibel(np.full_like(error, data_range**2), error)


def sqnr_db(reference: Values, candidate: Values) -> Array:
    """Signal to quantization noise of every sample: of latents, noise predictions, activations.

    Args:
        reference: (N, ...) what full precision gives.
        candidate: like `reference`, what the quantized network gives.

    Returns:
        (N,) float64 in dB, 10 log10(||reference||^2 / ||candidate - reference||^2); +inf for identical
        samples (also when both are zero), -inf for a zero reference and another candidate.

    Raises:
        ShapeError: the shapes differ or have fewer than two axes.
        DataError: no samples, NaN or infinite values, or one side is uint8 and the other is not.
    """
    signal = _per_sample(reference, candidate, lambda a, b: np.square(a).sum(axis=1))  # (N,)
    noise = _per_sample(reference, candidate, lambda a, b: np.square(a - b).sum(axis=1))  # (N,)
    return _decibel(signal, noise)


def cosine(reference: Values, candidate: Values) -> Array:
    """Cosine of the angle between two flattened samples. It cannot see a wrong scale: read it beside SQNR.

    Args:
        reference: (N, ...).
        candidate: like `reference`.

    Returns:
        (N,) float64 in [-1, 1]; 1 when both samples are zero, 0 when one of them is.

    Raises:
        ShapeError: the shapes differ or have fewer than two axes.
        DataError: no samples, NaN or infinite values, or one side is uint8 and the other is not.
    """
    return _per_sample(reference, candidate, _cosine_rows)


def ssim(
    reference: Values,
    candidate: Values,
    *,
    data_range: float = 1.0,
    channels: Literal["last", "first"] = "last",
) -> Array:
    """Structural similarity of every picture: torchmetrics, Gaussian window of sigma 1.5, mean over channels.

    Args:
        reference: (N, H, W, C) pictures, or (N, C, H, W) with channels="first"; uint8 or floats in
            [0, data_range].
        candidate: like `reference`.
        data_range: largest possible value, 1 for uint8.
        channels: where the channel axis is.

    Returns:
        (N,) float64 of a float32 calculation, at most 1; 1 for identical pictures. The map is averaged up to
        the (reflected) border, which Wang et al. 2004 crop.

    Raises:
        ShapeError: not four axes, shapes differ, not 1, 3 or 4 channels, or fewer than 11 pixels a side.
        DataError: values outside [0, data_range], NaN, no samples, or mixed kinds.
        SettingsError: `data_range` is not positive, or not 1 for uint8.

    Source:
        Wang et al. 2004, K1 = 0.01, K2 = 0.03.
    """
    _check_data_range(reference, data_range)
    if channels not in ("last", "first"):
        raise SettingsError(f'channels must be "last" or "first", got {channels!r}')
    shape = tuple(reference.shape)
    if len(shape) != 4:
        raise ShapeError(f"ssim needs pictures with four axes, got shape {shape}")
    height_axis, channel_axis = (1, 3) if channels == "last" else (2, 1)
    if shape[channel_axis] not in (1, 3, 4):
        raise ShapeError(f"ssim found {shape[channel_axis]} channels in {shape} with channels={channels!r}")
    sides = shape[height_axis : height_axis + 2]
    if min(sides) < SSIM_WINDOW:
        raise ShapeError(f"ssim needs pictures of at least {SSIM_WINDOW} pixels a side, got {sides}")

    def similarity(a: Array, b: Array) -> Array:
        if min(a.min(), b.min()) < 0.0 or max(a.max(), b.max()) > data_range:
            low, high = min(a.min(), b.min()), max(a.max(), b.max())
            raise DataError(f"ssim needs values in [0, {data_range:g}], found [{low:g}, {high:g}]")
        pair = [torch.from_numpy(side).float().reshape(-1, *shape[1:]) for side in (a, b)]  # (n, H, W, C)
        if channels == "last":
            pair = [side.permute(0, 3, 1, 2) for side in pair]  # (n, C, H, W)
        scores = structural_similarity_index_measure(
            pair[1], pair[0], data_range=data_range, reduction="none"
        )
        return np.asarray(scores.double().numpy(), dtype=np.float64).reshape(-1)  # (n,)

    return _per_sample(reference, candidate, similarity)


def _per_sample(reference: Values, candidate: Values, function: Callable[[Array, Array], Array]) -> Array:
    """Check the two sides and apply `function` to chunks of flattened float64 samples (n, values)."""
    shape, other = tuple(reference.shape), tuple(candidate.shape)
    if shape != other:
        raise ShapeError(f"reference and candidate must have one shape, got {shape} and {other}")
    if len(shape) < 2:
        raise ShapeError(f"samples must be (N, ...) with at least two axes, got shape {shape}")
    if 0 in shape:
        raise DataError(f"there is nothing to compare in shape {shape}")
    if _is_uint8(reference) != _is_uint8(candidate):
        raise DataError(f"one side is uint8 and the other is not: {reference.dtype} and {candidate.dtype}")
    parts = []
    for start in range(0, shape[0], _CHUNK):
        rows = slice(start, start + _CHUNK)
        a, b = _to_float64(reference[rows]), _to_float64(candidate[rows])
        for name, side in (("reference", a), ("candidate", b)):
            if not np.isfinite(side).all():
                first = start + int(np.flatnonzero(~np.isfinite(side).all(axis=1))[0])
                raise DataError(f"{name} has NaN or infinite values, first in sample {first}")
        parts.append(function(a, b))
    return np.concatenate(parts)


def _to_float64(values: Values) -> Array:
    """Flatten to (n, values) float64; uint8 becomes [0, 1]."""
    array = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    if isinstance(array, torch.Tensor):
        array = array.numpy() if array.dtype == torch.uint8 else array.double().numpy()
    scale = _UINT8_PEAK if array.dtype == np.uint8 else 1.0
    return (np.asarray(array, dtype=np.float64) / scale).reshape(array.shape[0], -1)


def _is_uint8(values: Values) -> bool:
    return values.dtype in (torch.uint8, np.dtype(np.uint8))


def _check_data_range(reference: Values, data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise SettingsError(f"data_range must be a positive number, got {data_range}")
    if _is_uint8(reference) and data_range != 1.0:
        raise SettingsError(f"uint8 pictures are read as [0, 1]: data_range must be 1, got {data_range}")


def _decibel(signal: Array, noise: Array) -> Array:
    """10 log10(signal / noise); +inf without noise, -inf without signal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10.0 * (np.log10(signal) - np.log10(noise))  # (N,)
    return np.where(noise == 0.0, np.inf, ratio)


def _cosine_rows(a: Array, b: Array) -> Array:
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)  # (n,)
    product = norm_a * norm_b
    value = (a * b).sum(axis=1) / np.where(product == 0.0, 1.0, product)
    both_zero = (norm_a == 0.0) & (norm_b == 0.0)
    clipped: Array = np.clip(np.where(both_zero, 1.0, value), -1.0, 1.0)
    return clipped
