"""What the Distill page sends of a run: everything at first, then only what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from mpqdm_core.runs import Run, RunState
from pages import _distill_view as showing
from pages._distill_work import RUNS


def everything(run: Run | None, seen: dict[str, Any] | None) -> tuple[Any, ...]:
    """All outputs of the page, in the order of `distill.Distill.shown`.

    Args:
        run: this browser's, or None.
        seen: marks of what the page shows already, the first output of the last call; None sends everything.
    """
    marks = _marks(run)

    def part(mark: str, make: Callable[[], Any]) -> Any:
        return gr.skip() if seen is not None and seen.get(mark) == marks[mark] else make()

    alive = run is not None and run.alive
    again = run is not None and run.state in (RunState.STOPPED, RunState.FAILED)
    return (
        marks,
        part("state", lambda: gr.Timer(active=alive)),
        part("status", lambda: showing.status(run, RUNS)),
        part("state", lambda: gr.Button(visible=not alive)),
        part("state", lambda: gr.Button(visible=alive, interactive=run is not None and not run.stopping)),
        part("state", lambda: gr.Button(visible=again)),
        part("steps", lambda: gr.HTML(fig="" if run is None else showing.losses(run))),
        part("moments", lambda: gr.HTML(previews="" if run is None else showing.previews(run))),
        part("diagnosis", lambda: showing.doctor(run)),
        part("result", lambda: showing.result(run)),
        part("log", lambda: "" if run is None else "\n".join(run.log)),
        part("result", lambda: _download(run)),
        part("result", lambda: gr.Button(visible=run is not None and run.adapter is not None)),
        part("state", lambda: gr.Button(visible=again)),
    )


def _marks(run: Run | None) -> dict[str, Any]:
    """What tells old from new, part by part."""
    if run is None:
        return dict.fromkeys(("state", "status", "steps", "moments", "diagnosis", "result", "log"))
    state = [run.id, run.state.value, run.stopping]
    last = run.previews[-1] if run.previews else None
    return {
        "state": state,
        "status": [*state, run.done, run.message, int(run.seconds), RUNS.position(run)],
        "steps": [run.id, run.steps[-1].step if run.steps else 0],
        "moments": [run.id, run.reference is not None, last and [last.step, last.psnr_db, len(run.previews)]],
        "diagnosis": [run.id, run.diagnoses[-1].step if run.diagnoses else None],
        "result": [run.id, str(run.adapter_file), len(run.previews) if run.adapter else 0],
        "log": [run.id, run.log[-1] if run.log else "", len(run.log)],
    }


def _download(run: Run | None) -> Any:
    file = None if run is None else run.adapter_file
    there = file is not None and file.exists()
    return gr.DownloadButton(value=str(file) if there else None, visible=there)
