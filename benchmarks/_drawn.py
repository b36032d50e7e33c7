"""Drawn pictures of a benchmark: kept in a file, and looked at by `sprites-encoder` whatever their size."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import Samples
from mpqdm_core.zoo.encoder import EncoderOutput, SpritesEncoder
from mpqdm_core.zoo.sprites import IMAGE_SIZE


class Judge(torch.nn.Module):
    """`sprites-encoder` on pictures of any size, enlarged to what it reads."""

    def __init__(self, encoder: SpritesEncoder) -> None:
        """Look with this encoder."""
        super().__init__()
        self.encoder = encoder
        self.eval()

    def forward(self, pictures: Tensor) -> EncoderOutput:
        """Pictures (N, 3, H, W) within [-1, 1]."""
        if pictures.shape[-1] != IMAGE_SIZE:
            pictures = interpolate(pictures, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
        found: EncoderOutput = self.encoder(pictures)
        return found


def kept_samples(path: Path, sampler: SamplerSettings, draw: Callable[[], Samples]) -> Samples:
    """The pictures and latents of a file; drawn and written where there is none."""
    names = ("images", "latents", "seeds", "labels", "timesteps")
    if not path.exists():
        drawn = draw()
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as stream:
            arrays = {name: getattr(drawn, name) for name in names}
            np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
        os.replace(partial, path)
        return drawn
    with np.load(path) as archive:
        arrays = {name: archive.get(name) for name in names}
    return Samples(**arrays, settings=sampler, trajectory=None, predictions=None, x0=None)
