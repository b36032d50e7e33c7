"""Which pictures and which consecutive timesteps an optimiser step looks at: a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpqdm_core.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """One optimiser step's work."""

    slots: tuple[int, ...]  # consecutive positions in the teacher's timesteps
    pictures: Tensor  # (m,) int64


class WindowOrder:
    """Passes over the timesteps, in windows that do not overlap; each pass has its own pictures.

    The last window of a pass is shorter where N does not divide T. Any step can be asked for at any time, so
    a run that was killed goes on with the very windows it would have had.
    """

    def __init__(
        self, *, timesteps: int, window: int, pictures: int, batch_size: int, seed: int, shuffle: bool
    ) -> None:
        """Plan the passes.

        Raises:
            SettingsError: the window is longer than the sampler's way.
        """
        if window > timesteps:
            raise SettingsError(f"a window of {window} steps does not fit {timesteps} sampling steps")
        self.windows = [
            tuple(range(first, min(first + window, timesteps))) for first in range(0, timesteps, window)
        ]
        self._pictures, self._batch_size = pictures, min(batch_size, pictures)
        self._seed, self._shuffle = seed, shuffle

    @property
    def per_pass(self) -> int:
        """Optimiser steps of one pass."""
        return len(self.windows)

    def at(self, step: int) -> Window:
        """The window of optimiser step `step`, counted from 0."""
        turn, position = divmod(step, self.per_pass)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + turn)
        if self._shuffle:
            position = int(torch.randperm(self.per_pass, generator=generator)[position])
            generator.manual_seed(self._seed * 1_000_003 + step + 2**40)  # a shuffled window draws its own
        chosen = torch.randperm(self._pictures, generator=generator)[: self._batch_size]
        return Window(slots=self.windows[position], pictures=chosen)
