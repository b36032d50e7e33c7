"""A sweep on several processes of one or more machines, started by `accelerate launch` or `torchrun`.

Every process runs the same program, agrees with the others on the cells that are missing, takes every n-th of
them and keeps its results itself: the run store is safe under several processes. When one dies, the launcher
ends the others; what is kept is kept, and the same command computes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from mpqdm_core.board.blobs import writing
from mpqdm_core.board.engine import Keep, SerialEngine, Worker
from mpqdm_core.board.sweep import Cell
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.progress import Report, silent

LONGEST = timedelta(days=14)  # that one process waits for the others; the default of minutes is for training
MISSING = (
    "the engine accelerate needs a package that is not installed: "
    "pip install -r requirements-cluster.txt -c constraints.txt"
)


class AccelerateEngine:
    """This process's share of a sweep."""

    def __init__(self) -> None:
        """Join the other processes; there are none without a launcher.

        Raises:
            SettingsError: accelerate is not installed.
        """
        try:
            from accelerate import PartialState
            from accelerate.utils import broadcast_object_list
        except ImportError as err:
            raise SettingsError(MISSING) from err
        self._broadcast = broadcast_object_list
        # Asked for, since accelerate takes a launched process without a GPU for the only one.
        self._state: Any = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST)

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return bool(self._state.is_main_process)

    @property
    def device(self) -> str:
        """Where this process computes."""
        return str(self._state.device)

    def run(self, cells: Sequence[Cell], worker: Worker, keep: Keep, report: Report) -> None:
        """Compute this process's cells and wait for the others; see `mpqdm_core.board.engine.Engine`."""
        agreed = [list(cells)]  # the others may look later, when the first has kept some already
        self._broadcast(agreed, from_process=0)
        mine = agreed[0][self._state.process_index :: self._state.num_processes]
        SerialEngine().run(mine, worker, keep, report)
        self._state.wait_for_everyone()

    def calibration(self, denoiser: Denoiser, folder: Path, report: Report = silent) -> Calibration:
        """One calibration for all: the first process makes it, or finds it in `folder`, and all read it.

        Raises:
            StoreError: it cannot be written.
            Cancelled: raised by `report`.
        """
        path = folder / f"calibration-{denoiser.content_hash[:16]}.safetensors"
        with self._state.main_process_first():
            if self.is_first and not path.is_file():
                made = calibrate(denoiser, CalibrationSettings(), report)
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    made.save(path)
            return Calibration.load(path)
