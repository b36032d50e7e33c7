"""Who computes the cells of a sweep: this process, several of them, or a cluster.

An engine hands cells to workers and says what became of each; the caller keeps it. A worker for other
processes is a `CellWork`: a value that can be pickled and names its model, so that only results travel back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mpqdm_core.board.run import KeptRun, now
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import Cell, Effort, SweepSettings, sweep_id
from mpqdm_core.errors import Cancelled, LoadError, MpqdmError
from mpqdm_core.progress import Report, silent

if TYPE_CHECKING:  # computing needs torch; planning a sweep does not
    from mpqdm_core.board.laboratory import Computed, Laboratory
    from mpqdm_core.calibration import Calibration

FULL = 100
MEMORY = "There was not enough memory for this cell."
logger = logging.getLogger(__name__)

Worker = Callable[[Cell, Report], "Computed | str"]
"""Computes one cell, or says in a sentence why it failed; raises nothing but `Cancelled`."""

Keep = Callable[[Cell, "Computed | str"], None]
"""Told what became of a cell as soon as it is known, in the process of the caller."""


class Engine(Protocol):
    """Hands cells to workers."""

    def run(self, cells: Sequence[Cell], worker: Worker, keep: Keep, report: Report) -> None:
        """Compute every cell.

        Args:
            cells: to be computed, in the order in which results are wanted.
            worker: computes one.
            keep: told every cell that was computed, has failed, or was lost with its worker.
            report: told how far all of them are; may raise `Cancelled`, which ends the work.
        """


class SerialEngine:
    """One cell after the other in this process."""

    def run(self, cells: Sequence[Cell], worker: Worker, keep: Keep, report: Report) -> None:
        """Compute every cell; see `Engine`."""
        total = len(cells) * FULL
        for place, cell in enumerate(cells):

            def told(done: int, parts: int, message: str, place: int = place, cell: Cell = cell) -> None:
                share = FULL * done // max(parts, 1)
                name = f"cell {place + 1} of {len(cells)}, {cell.title}, seed {cell.seed}"
                report(place * FULL + share, total, f"{name}: {message}")

            keep(cell, worker(cell, told))
        report(total, total, f"{len(cells)} cells computed")


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """A worker for other processes and machines: it loads its model by name, once a process."""

    source: str  # a bundled model, or a folder that is at the same place on every machine
    effort: Effort
    sweep: str = ""
    model_hash: str = ""  # of the caller's model; a worker that finds another one says so
    calibration_hash: str = ""
    calibration: Calibration | None = field(default=None, compare=False)  # the caller's: ids depend on it
    scratch: Path | None = None  # folder of checkpoints, where the worker shares the caller's disk
    device: str = ""  # empty: a GPU that the worker may use, or else the processor

    def __call__(self, cell: Cell, report: Report = silent) -> Computed | str:
        """Compute one cell."""
        try:
            laboratory = _laboratory(self)
        except MpqdmError as err:
            return str(err)
        return compute_cell(laboratory, cell, self.sweep, report)


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepOutcome:
    """What became of a sweep's cells."""

    id: str
    found: int  # kept before
    computed: int
    failed: int


def run_sweep(
    laboratory: Laboratory,
    settings: SweepSettings,
    store: RunStore,
    *,
    engine: Engine | None = None,
    worker: Worker | None = None,
    on_cell: Callable[[KeptRun], None] | None = None,
    report: Report = silent,
) -> SweepOutcome:
    """Compute the cells that are not kept yet; stop at any time and call again to go on.

    Args:
        laboratory: with the model.
        settings: which cells.
        store: where they are kept; cells found there are not computed again, unless they failed.
        engine: None computes one after the other here.
        worker: what computes a cell; None uses `laboratory`.
        on_cell: told every cell as soon as it is kept.
        report: told how far it is; may raise `Cancelled`.

    Raises:
        StoreError: a result cannot be kept.
        Cancelled: raised by `report`; finished cells are kept.
    """
    name = sweep_id(settings, laboratory.denoiser.content_hash)
    store.keep_sweep(name, {**settings.as_dict(), "model": laboratory.denoiser.source})
    cells = settings.cells()
    done = finished(store.runs())
    missing = [cell for cell in cells if laboratory.id_of(cell, report) not in done]

    def compute(cell: Cell, told: Report) -> Computed | str:
        return compute_cell(laboratory, cell, name, told)

    def keep(cell: Cell, made: Computed | str) -> None:
        run = keep_cell(laboratory, cell, store, name, made)
        if on_cell is not None:
            on_cell(run)

    (engine or SerialEngine()).run(missing, worker or compute, keep, report)
    # Counted in the store: an engine may have left cells to other processes.
    ids = {laboratory.id_of(cell) for cell in missing}
    states = [run.state for run in store.runs() if run.id in ids]
    return SweepOutcome(
        id=name,
        found=len(cells) - len(missing),
        computed=states.count("done"),
        failed=states.count("failed"),
    )


def finished(runs: Iterable[KeptRun]) -> set[str]:
    """Ids of the runs that need not be computed again."""
    return {run.id for run in runs if run.state == "done"}


def compute_and_keep(
    laboratory: Laboratory, cell: Cell, store: RunStore, sweep: str, report: Report
) -> KeptRun:
    """Compute a cell and keep it; a failure is kept in its place, as a sentence.

    Raises:
        StoreError: it cannot be kept.
        Cancelled: raised by `report`.
    """
    return keep_cell(laboratory, cell, store, sweep, compute_cell(laboratory, cell, sweep, report))


def compute_cell(laboratory: Laboratory, cell: Cell, sweep: str, report: Report) -> Computed | str:
    """Compute a cell, or say in a sentence why it failed.

    Raises:
        Cancelled: raised by `report`.
    """
    try:
        return laboratory.compute(cell, sweep, report)
    except Cancelled:
        raise
    except MemoryError:
        return MEMORY
    except MpqdmError as err:
        return str(err)
    except Exception as err:  # one broken cell must not cost the others
        logger.exception("cell %s failed", cell.title)
        return f"unexpected {type(err).__name__}: {err}"


def keep_cell(
    laboratory: Laboratory, cell: Cell, store: RunStore, sweep: str, made: Computed | str
) -> KeptRun:
    """Keep what became of a cell; a sentence makes it a failed one.

    Raises:
        StoreError: it cannot be kept.
    """
    if isinstance(made, str):
        return store.add(_failure(laboratory, cell, sweep, made))
    return store.add(made.run, made.files)


def _failure(laboratory: Laboratory, cell: Cell, sweep: str, sentence: str) -> KeptRun:
    from mpqdm_core.board.cells import asked_of

    return KeptRun(
        id=laboratory.id_of(cell),
        kind="cell",
        title=cell.title,
        state="failed",
        error=sentence[:2_000],
        created=now(),
        sweep=sweep,
        settings=asked_of(cell, laboratory.effort, laboratory.denoiser.source),
        hashes={"model": laboratory.denoiser.content_hash},
    )


@lru_cache(maxsize=1)
def _laboratory(work: CellWork) -> Laboratory:
    """One laboratory a process, for one cell after the other."""
    import torch

    from mpqdm_core.board.laboratory import Laboratory
    from mpqdm_core.loading import load_denoiser

    denoiser = load_denoiser(work.source)
    if work.model_hash and denoiser.content_hash != work.model_hash:
        raise LoadError(f"{work.source} is another model on the worker's machine than where the sweep began")
    device = work.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu":
        denoiser.pipeline.to(device)
    shares_a_disk = work.scratch is not None and work.scratch.parent.is_dir()
    scratch = work.scratch if shares_a_disk else None
    return Laboratory(denoiser, work.effort, calibration=work.calibration, scratch=scratch)
