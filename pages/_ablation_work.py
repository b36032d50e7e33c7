"""Filling a sweep on the model in use: what it will take, and the long job itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from mpqdm_core.board.costs import Estimate, estimate
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import Cell, SweepSettings
from mpqdm_core.progress import Report
from pages._work import ensure_calibration, ensure_denoiser, phase
from pages._workspace import Recent, Workspace

UNGUIDED = 1.0
LABORATORIES: Recent[Any] = Recent(2)  # each holds a model's references and teacher's records


def model_hash(work: Workspace) -> str | None:
    """Hash of the model in use, known from what ships with it or once it was loaded."""
    if work.denoiser is not None:
        return str(work.denoiser.content_hash)
    return None if work.precomputed is None else work.precomputed.card().get("model_hash")


def missing_cells(work: Workspace, settings: SweepSettings, runs: Sequence[KeptRun]) -> tuple[Cell, ...]:
    """Cells of a sweep that are not kept yet, as far as can be told before the model is loaded."""
    model = model_hash(work)
    kept = [run for run in runs if run.state == "done" and run.hashes.get("model") == model]
    return tuple(
        cell for cell in settings.cells() if not any(_is_kept_as(cell, settings, run) for run in kept)
    )


def time_needed(
    work: Workspace, cells: Sequence[Cell], settings: SweepSettings, runs: Sequence[KeptRun]
) -> Estimate:
    """How long those cells will take on this server."""
    model = model_hash(work)
    guided = work.sampler.get("guidance_scale", UNGUIDED) != UNGUIDED
    calls = int(work.sampler.get("num_inference_steps", 20)) * (2 if guided else 1)
    history = [run for run in runs if run.hashes.get("model") == model]
    macs = sum(layer.macs for layer in work.layers)
    return estimate(cells, settings.effort, macs=macs, calls=calls, history=history)


def fill_sweep(
    work: Workspace,
    settings: SweepSettings,
    store: RunStore,
    on_cell: Callable[[KeptRun], None],
    report: Report,
) -> Any:
    """Compute what is missing of a sweep; stopped at any time, finished cells are kept.

    Raises:
        Cancelled: raised by `report`.
        StoreError: a result cannot be kept.
    """
    from mpqdm_core.board.engine import run_sweep
    from mpqdm_core.board.laboratory import Laboratory

    denoiser = ensure_denoiser(work, phase(report, 0, 20, "loading"))
    calibration = ensure_calibration(work, phase(report, 0, 20, "calibration"))
    tables = [table for bits in work.measured_bits() if (table := work.table(bits)) is not None]
    key = (denoiser.content_hash, calibration.content_hash, settings.effort, str(store.folder))
    laboratory = LABORATORIES.get_or_make(
        key,
        lambda: Laboratory(
            denoiser, settings.effort, calibration=calibration, tables=tables, scratch=store.folder
        ),
    )
    return run_sweep(laboratory, settings, store, on_cell=on_cell, report=report)


def _is_kept_as(cell: Cell, settings: SweepSettings, run: KeptRun) -> bool:
    wanted = {**asdict(cell), "pictures": settings.effort.pictures}
    if cell.finetuning != "none":
        wanted["steps"] = settings.effort.steps
    return all(run.settings.get(name, "") == value for name, value in wanted.items())
