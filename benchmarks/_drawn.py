"""Drawn pictures of a benchmark, kept in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import Samples


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
