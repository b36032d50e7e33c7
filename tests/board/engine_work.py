"""A cheap stand-in for computing a cell, and for the laboratory: other processes import it by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from mpqdm_core.board.run import KeptRun, Metric, now
from mpqdm_core.board.sweep import Cell, Effort, SweepSettings, cell_id

EFFORT = Effort(pictures=2)
SETTINGS = SweepSettings(policies=("uniform",), average_bits=(2.0, 3.0, 4.0, 5.0, 6.0, 7.0), effort=EFFORT)
PATIENCE_S = 60


def id_of(cell, report=None):
    return cell_id(cell, EFFORT, model_hash="aa", calibration_hash="bb")


def laboratory():
    """What `run_sweep` asks a laboratory: it computes nothing."""
    denoiser = SimpleNamespace(content_hash="aa", source="made up")
    return SimpleNamespace(denoiser=denoiser, effort=EFFORT, id_of=id_of)


@dataclass(frozen=True)
class Work:
    """Writes down every beginning of a cell; some cells end their process, or wait until somebody ends it."""

    folder: Path
    dies: float = 0.0  # cells of so many bits end their process, every time
    waits: float = 0.0  # the first process with this cell waits to be ended

    def __call__(self, cell: Cell, report):
        report(0, 1, "working")
        with (self.folder / "begun").open("a", encoding="utf-8") as file:
            file.write(f"{cell.average_bits:g} {os.getpid()}\n")
        if cell.average_bits == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if cell.average_bits == self.waits and len(begun(self.folder, cell.average_bits)) == 1:
            time.sleep(PATIENCE_S)
            return "nobody ended this process"
        run = KeptRun(
            id=id_of(cell),
            kind="cell",
            title=cell.title,
            created=now(),
            settings={"average_bits": cell.average_bits},
            metrics={"psnr_db": Metric(value=10 * cell.average_bits)},
        )
        return SimpleNamespace(run=run, files=())


def begun(folder: Path, bits: float) -> list[int]:
    """The processes that have begun this cell, in order."""
    path = folder / "begun"
    if not path.exists():
        return []
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [int(process) for found, process in pairs if float(found) == bits]
