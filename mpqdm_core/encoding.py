"""Pictures as an encoder sees them: what the distributional metrics compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.progress import Report, silent

Encoder = Callable[[torch.Tensor], Any]
"""(N, 3, H, W) in [-1, 1] -> an object with `features` (N, d), `spatial` (N, ...) and `logits` (N, K)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSet:
    """Features of a set of pictures."""

    features: NDArray[np.float32]  # (N, d) pooled: FID, KID, precision, recall
    spatial: NDArray[np.float32]  # (N, s) flattened feature map: sFID
    probabilities: NDArray[np.float64]  # (N, K), rows sum to 1: inception score, class accuracy

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.features)


def encode(
    encoder: Encoder, images: NDArray[np.uint8], *, batch_size: int = 256, report: Report = silent
) -> EncodedSet:
    """Run the encoder over pictures.

    Args:
        encoder: see `Encoder`; a module must be in evaluation mode, or a picture would depend on its batch.
        images: (N, H, W, 3) uint8.
        batch_size: pictures at once.
        report: called before the first and after every batch; may raise `Cancelled`.

    Returns:
        What the metrics need, on the CPU.

    Raises:
        ShapeError: `images` is not (N, H, W, 3).
        DataError: `images` is not uint8, or there are none.
        SettingsError: the encoder is in training mode, or `batch_size` is below 1.
    """
    if images.ndim != 4 or images.shape[3] != 3:
        raise ShapeError(f"images must be (N, H, W, 3), got shape {images.shape}")
    if images.dtype != np.uint8 or len(images) == 0:
        raise DataError(f"images must be one or more uint8 pictures, got {len(images)} of {images.dtype}")
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
    device, dtype = torch.device("cpu"), torch.float32
    if isinstance(encoder, torch.nn.Module):
        if encoder.training:
            raise SettingsError("the encoder is in training mode: call its eval() first")
        parameter = next(encoder.parameters(), None)
        if parameter is not None:
            device, dtype = parameter.device, parameter.dtype
    message = f"encoding {len(images)} pictures"
    batches = range(0, len(images), batch_size)
    features, spatial, probabilities = [], [], []
    report(0, len(batches), message)
    with torch.no_grad():
        for done, start in enumerate(batches, 1):
            pixels = torch.from_numpy(images[start : start + batch_size]).to(device, dtype)  # (n, H, W, 3)
            output = encoder(pixels.permute(0, 3, 1, 2) / 127.5 - 1.0)
            features.append(output.features.float().cpu().numpy())
            spatial.append(output.spatial.flatten(1).float().cpu().numpy())
            probabilities.append(output.logits.double().softmax(dim=1).cpu().numpy())
            report(done, len(batches), message)
    return EncodedSet(
        features=np.concatenate(features),
        spatial=np.concatenate(spatial),
        probabilities=np.concatenate(probabilities),
    )
