"""What a calibration has heard so far, kept in a file so that a killed one goes on from there.

Only the network's calls take time. The file holds the answer of every call and the statistics up to there; a
calibration that goes on draws from the start, the network gives the answers that are written down, and the
pipeline comes to the next call with the latents and the random numbers it would have had, whatever its
scheduler is.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from mpqdm_core.errors import DataError, LoadError
from mpqdm_core.input_stats import StatsCollector
from mpqdm_core.recording import output_tensor

SAVE_EVERY_S = 20.0


class CalibrationJournal:
    """The answers of a network and the statistics of its layers, after every whole call."""

    def __init__(self, path: str | Path, fingerprint: str, collector: StatsCollector) -> None:
        """Start with what the file holds, or with nothing; the collector goes on from there.

        Args:
            path: of the file.
            fingerprint: of the model and everything that decides its calls.
            collector: watches the layers already.

        Raises:
            DataError: the file is of another calibration.
            LoadError: it is damaged.
        """
        self._path, self._fingerprint, self._collector = Path(path), fingerprint, collector
        self._answers: list[Tensor] = []
        self._given, self._saved = 0, 0  # answers given again, answers in the file
        self._saved_at = time.monotonic()
        self._in_call = False
        if self._path.exists():
            self._restore()

    def listen(self, network: nn.Module) -> None:
        """Answer the calls of `network` that are written down, and write down the others."""
        compute = network.forward

        @functools.wraps(compute)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._given < len(self._answers):
                answer = self._answers[self._given]
                self._given += 1
                return UNet2DOutput(sample=answer) if kwargs.get("return_dict", True) else (answer,)
            self._in_call = True
            output = compute(*args, **kwargs)
            self._answers.append(output_tensor(output).detach().clone())
            self._in_call, self._given = False, len(self._answers)
            if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
                self.save()
            return output

        network.forward = forward

    def save(self) -> None:
        """Write what is not in the file yet, unless a call broke off: half of its layers were heard."""
        if self._in_call or self._saved == len(self._answers):
            return
        partial = self._path.with_name(self._path.name + ".part")
        state = {
            "fingerprint": self._fingerprint,
            "answers": self._answers,
            "statistics": self._collector.state_dict(),
        }
        torch.save(state, partial)
        os.replace(partial, self._path)
        self._saved, self._saved_at = len(self._answers), time.monotonic()

    def __enter__(self) -> CalibrationJournal:
        """Go on listening."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the file, as the calibration has everything now; or write it where something broke off."""
        if kind is None:
            self._path.unlink(missing_ok=True)
        else:
            self.save()

    def _restore(self) -> None:
        try:
            state = torch.load(self._path, weights_only=True)
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise LoadError(f"{self._path.name} is damaged: delete it to calibrate from the start") from error
        if fingerprint != self._fingerprint:
            raise DataError(
                f"{self._path.name} is of another calibration (model, sampler or settings differ): delete "
                "it, or name another file"
            )
        self._answers, self._saved = state["answers"], len(state["answers"])
        self._collector.load_state_dict(state["statistics"])
