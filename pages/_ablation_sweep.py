"""Events of the sweep builder: what a sweep will take, and filling it cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.shelf import Library
from mpqdm_core.board.sweep import Cell
from mpqdm_core.errors import MpqdmError
from pages import _ablation_show as showing
from pages._ablation_builder import read_sweep
from pages._ablation_store import library
from pages._ablation_work import fill_sweep, missing_cells, time_needed
from pages._context import as_sentences
from pages._html import outcome, progress, warning
from pages._jobs import Step, stream
from pages._session import workspace
from pages._work import job


def on_plan(request: gr.Request, session: str | None, *controls: Any) -> tuple[str, Any]:
    """Say how many cells there are and how long they will take, before anything is computed."""
    try:
        settings, work, runs = read_sweep(*controls), workspace(session), library(request).store.runs()
    except MpqdmError as err:
        return warning(str(err)), gr.Button("Compute the cells", interactive=False)
    missing, all_cells = missing_cells(work, settings, runs), settings.cells()
    if not missing:
        words = f"All {len(all_cells)} cells are kept already: nothing to compute."
        return outcome(words), gr.Button("Compute the cells", interactive=False)
    found = time_needed(work, missing, settings, runs)
    kept = len(all_cells) - len(missing)
    told = f"{len(all_cells)} cells" + (f", {kept} of them kept already" if kept else "")
    words = f"{told}. About {_duration(found.seconds)} ({_duration(found.low)} to {_duration(found.high)}). "
    count = f"Compute {len(missing)} cell" + ("s" if len(missing) > 1 else "")
    return outcome(words + found.basis), gr.Button(count, interactive=True)


def on_start(
    request: gr.Request, session: str | None, choice: dict[str, Any], *controls: Any
) -> Iterator[tuple[Any, ...]]:
    """Fill the sweep; every cell appears in the table as soon as it is kept."""
    with as_sentences():
        settings, work, held = read_sweep(*controls), workspace(session), library(request)
        missing, made = missing_cells(work, settings, held.store.runs()), list[KeptRun]()
        yield (
            outcome("Starting."),
            gr.Button(visible=False),
            gr.Button(visible=True),
            gr.HTML(board=board_of(held, choice, missing)),
        )
        told = 0
        for event in stream(job(fill_sweep, work, settings, held.store, made.append)):
            left = missing[len(made) :]
            new = gr.skip() if told == len(made) else gr.HTML(board=board_of(held, choice, left))
            told = len(made)
            if isinstance(event, Step):
                yield (
                    progress(event.done, event.total, event.message, event.seconds),
                    gr.skip(),
                    gr.skip(),
                    new,
                )
            else:
                yield _ended(event), gr.Button(visible=True), gr.Button(visible=False), new


def board_of(held: Library, choice: dict[str, Any], waiting: Sequence[Cell] = ()) -> str:
    """What the table shows: shipped runs, one's own, and cells that are still to be computed."""
    own = [run.id for run in held.store.runs()]
    return showing.board(held.runs(), own, choice.get("baseline"), waiting)


def _ended(event: Any) -> str:
    found = event.value
    failed = f", {found.failed} failed: the table says why" if found.failed else ""
    return outcome(
        f"{found.computed} cells computed in {event.seconds:.0f} s{failed}. Simulated quantization."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
