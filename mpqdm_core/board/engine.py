"""Who computes the cells of a sweep. The sweep does not care: results are found in the run store.

An engine hands cells to workers. A worker is a `CellWork`: a small value that can be pickled, names its model
and its store, and can be called in any process; the run store is safe under several of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mpqdm_core.board.run import KeptRun, now
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import Cell, Effort, SweepSettings, sweep_id
from mpqdm_core.errors import Cancelled, MpqdmError
from mpqdm_core.progress import Report, silent

if TYPE_CHECKING:  # computing needs torch; planning a sweep does not
    from mpqdm_core.board.laboratory import Laboratory

FULL = 100
MEMORY = "There was not enough memory for this cell."
logger = logging.getLogger(__name__)

Worker = Callable[[Cell, Report], KeptRun]
"""Computes one cell and keeps it; raises nothing but `Cancelled`."""


class Engine(Protocol):
    """Hands cells to workers."""

    def run(
        self, cells: Sequence[Cell], worker: Worker, on_cell: Callable[[KeptRun], None], report: Report
    ) -> None:
        """Compute every cell.

        Args:
            cells: to be computed, in the order in which results are wanted.
            worker: computes and keeps one; never raises for a cell that failed.
            on_cell: told every cell when it is kept, in the process of the caller.
            report: told how far all of them are; may raise `Cancelled`, which ends the work.
        """


class SerialEngine:
    """One cell after the other in this process."""

    def run(
        self, cells: Sequence[Cell], worker: Worker, on_cell: Callable[[KeptRun], None], report: Report
    ) -> None:
        """Compute every cell; see `Engine`."""
        total = len(cells) * FULL
        for place, cell in enumerate(cells):

            def told(done: int, parts: int, message: str, place: int = place, cell: Cell = cell) -> None:
                share = FULL * done // max(parts, 1)
                name = f"cell {place + 1} of {len(cells)}, {cell.title}, seed {cell.seed}"
                report(place * FULL + share, total, f"{name}: {message}")

            on_cell(worker(cell, told))
        report(total, total, f"{len(cells)} cells computed")


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """A worker that loads its model by name, once a process."""

    source: str
    store: Path
    effort: Effort
    sweep: str = ""

    def __call__(self, cell: Cell, report: Report = silent) -> KeptRun:
        """Compute one cell and keep it."""
        from mpqdm_core.board.laboratory import shared_laboratory

        laboratory = shared_laboratory(self.source, self.effort)
        return compute_and_keep(laboratory, cell, RunStore(self.store), self.sweep, report)


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
    made: list[KeptRun] = []

    def compute(cell: Cell, told: Report) -> KeptRun:
        return compute_and_keep(laboratory, cell, store, name, told)

    def keep(run: KeptRun) -> None:
        made.append(run)
        if on_cell is not None:
            on_cell(run)

    (engine or SerialEngine()).run(missing, worker or compute, keep, report)
    failed = sum(run.state == "failed" for run in made)
    return SweepOutcome(id=name, found=len(cells) - len(missing), computed=len(made) - failed, failed=failed)


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
    try:
        computed = laboratory.compute(cell, sweep, report)
    except Cancelled:
        raise
    except MemoryError:
        return store.add(_failure(laboratory, cell, sweep, MEMORY))
    except MpqdmError as err:
        return store.add(_failure(laboratory, cell, sweep, str(err)))
    except Exception as err:  # one broken cell must not cost the others
        logger.exception("cell %s failed", cell.title)
        return store.add(_failure(laboratory, cell, sweep, f"unexpected {type(err).__name__}: {err}"))
    return store.add(computed.run, computed.files)


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
