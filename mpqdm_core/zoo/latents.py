"""The autoencoder's view of many training pictures, computed once and kept in the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpqdm_core.progress import Report, silent
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.training import to_tensor

CHUNK = 2000  # pictures rendered and encoded between two writes, so that a kill costs seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentSet:
    """Posterior means and standard deviations of pictures, with their class labels."""

    mean: Tensor  # (N, 8, 8, 8) float32
    std: Tensor  # (N, 8, 8, 8) float32
    labels: Tensor  # (N,) int64

    @property
    def scaling_factor(self) -> float:
        """One over the standard deviation of all latents: what `vae.config.scaling_factor` holds."""
        return float(1.0 / (self.mean.var() + self.std.square().mean()).sqrt())

    def draw(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one latent of each picture `indices` (B,): (B, 8, 8, 8), not scaled."""
        noise = torch.randn(self.mean[indices].shape, generator=generator)
        return self.mean[indices] + self.std[indices] * noise


def encode_sprites(
    vae: AutoencoderKL, folder: Path, stream: int, count: int, report: Report = silent
) -> LatentSet:
    """Encode `count` pictures of a stream; finished chunks are read back from `folder`."""

    @torch.no_grad()
    def encode(indices: range) -> dict[str, Tensor]:
        images, labels = sprites.batch(stream, indices)
        posteriors = [vae.encode(part).latent_dist for part in torch.split(to_tensor(images), 100)]
        return {
            "mean": torch.cat([posterior.mean for posterior in posteriors]).contiguous(),
            "std": torch.cat([posterior.std for posterior in posteriors]).contiguous(),
            "labels": torch.from_numpy(labels),
        }

    return LatentSet(**cached_chunks(folder, stream, count, encode, report))


def cached_chunks(
    folder: Path,
    stream: int,
    count: int,
    make: Callable[[range], dict[str, Tensor]],
    report: Report = silent,
) -> dict[str, Tensor]:
    """Tensors of the pictures 0..count-1 of a stream, made chunk by chunk and kept.

    Args:
        folder: finished chunks are read back from it; it must hold nothing made otherwise.
        stream: of the sprites.
        count: pictures.
        make: tensors of some pictures, one row each, by name.
        report: hears about every chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for start in range(0, count, CHUNK):
        indices = range(start, min(start + CHUNK, count))
        part = "" if len(indices) == CHUNK else f"-{len(indices)}"
        path = folder / f"{stream}-{start:07d}{part}.safetensors"
        if not path.exists():
            save_file(make(indices), path.with_suffix(".partial"))
            os.replace(path.with_suffix(".partial"), path)
        chunks.append(load_file(path))
        report(indices.stop, count, "preparing pictures")
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
