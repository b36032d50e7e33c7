"""Compute the board that ships with the page: `assets/data/board`.

    python -m mpqdm_core.board.precompute              # about 24 cells; goes on where it was stopped
    python -m mpqdm_core.board.precompute --cells 2    # a trial

Allocations of the bundled model without fine-tuning: the same budgets spent in different ways. Cells are kept
in a run store beside it (`--run`) and written out when all are there; cells of another model stay behind.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpqdm_core.board.engine import compute_and_keep, finished
from mpqdm_core.board.laboratory import Laboratory
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.shelf import Shelf
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import Cell, Effort, SweepSettings
from mpqdm_core.calibration import Calibration
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import MpqdmError
from mpqdm_core.loading import load_denoiser
from mpqdm_core.progress import silent

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "assets" / "data"
MODEL = "sprites-ldm"
MAX_BYTES = 3 * 10**6
EFFORT = Effort(pictures=32)
GRIDS = (
    SweepSettings(
        policies=("uniform", "kurtosis"), weightings=("none",), scopes=("layer",),
        average_bits=(2.0, 3.0, 4.0), activation_bits=(4, 8), effort=EFFORT,
    ),
    SweepSettings(
        policies=("gain", "optimal"), weightings=("sensitivity",), scopes=("model",),
        average_bits=(2.0, 2.5, 3.0, 4.0), activation_bits=(4, 8), effort=EFFORT,
    ),
)  # fmt: skip
logger = logging.getLogger(__name__)


def planned() -> tuple[Cell, ...]:
    """The cells of the board."""
    return tuple(dict.fromkeys(cell for settings in GRIDS for cell in settings.cells()))


def shipped_laboratory(effort: Effort, source: str = MODEL, data: Path = DATA) -> Laboratory:
    """A laboratory with the calibration and the tables that ship with a model, as the page uses them."""
    folder = data / Path(source).name
    denoiser = load_denoiser(source)
    file = folder / "calibration.safetensors"
    calibration = Calibration.load(file) if file.is_file() else None
    if calibration is not None and calibration.denoiser_hash != denoiser.content_hash:
        calibration = None  # of another model
    tables = [ErrorTable.load(path) for path in sorted(folder.glob("error_table_*.npz"))]
    return Laboratory(denoiser, effort, calibration=calibration, tables=tables)


def precompute(laboratory: Laboratory, cells: Sequence[Cell], store: RunStore, shelf: Shelf) -> int:
    """Compute what is missing and write all of it out; returns the bytes written.

    Raises:
        MpqdmError: a cell failed, or the board became too large.
    """
    done, made = finished(store.runs()), list[KeptRun]()
    for number, cell in enumerate(cells, start=1):
        name = laboratory.id_of(cell)
        if name not in done:
            logger.info("%d of %d: %s", number, len(cells), cell.title)
            run = compute_and_keep(laboratory, cell, store, "board", silent)
            if run.state == "failed":
                raise MpqdmError(f"{cell.title}: {run.error}")
        if (kept := store.get(name)) is not None:
            made.append(replace(kept, sweep="board"))
    size = shelf.write(made, store)
    if size > MAX_BYTES:
        raise MpqdmError(f"the board has {size} bytes, at most {MAX_BYTES} are shipped: leave cells out")
    return size


def main() -> None:
    """Read the command line and compute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=None, help="only so many of the cells")
    parser.add_argument("--out", type=Path, default=DATA / "board")
    parser.add_argument(
        "--run", type=Path, default=ROOT / "runs" / "board", help="where finished cells are kept"
    )
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size = precompute(
        shipped_laboratory(EFFORT), planned()[: asked.cells], RunStore(asked.run), Shelf(asked.out)
    )
    logger.info("%d bytes in %s", size, asked.out)


if __name__ == "__main__":
    main()
