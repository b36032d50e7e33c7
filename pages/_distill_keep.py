"""Keeping a fine-tuning as a run of the Ablation board, with its curves and the doctor's numbers."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mpqdm_core.errors import DataError
from mpqdm_core.progress import silent
from pages import _distill_work as work
from pages._ablation_store import library
from pages._context import as_sentences
from pages._distill_adapters import ADAPTERS
from pages._exempt import denoiser_with
from pages._html import outcome
from pages._session import workspace
from pages._warm import import_all
from pages._work import ensure_denoiser

KEPT = "Kept as a run: it is on the Ablation tab, with its curves."
KNOWN = "This run is kept already: it is on the Ablation tab."


def on_keep(request: gr.Request, name: Any) -> str:
    """Keep this browser's run as it stands; one that is kept already stays as it is, with its note."""
    with as_sentences():
        run = work.RUNS.get(name) if isinstance(name, str) else None
        offered = None if run is None else ADAPTERS.get(run.id[:6])
        if run is None or offered is None or run.adapter is None:
            raise DataError("there is no adapter to keep yet: start a run, and wait or stop it")
        import_all()
        from mpqdm_core.board.keep_training import trained_run

        denoiser = denoiser_with(ensure_denoiser(workspace(offered.work_key), silent), offered.changed)
        made = trained_run(
            run, denoiser=denoiser, seeds=work.PREVIEW_SEEDS, finetuning=_losses(run.adapter.settings)
        )
        store = library(request).store
        if store.get(made.run.id) is not None:
            return outcome(KNOWN)
        store.add(made.run, made.files)
        return outcome(KEPT)


def _losses(settings: Any) -> str:
    """Which losses trained it, in the words of the page."""
    if settings.detach_features:
        return "as released"
    extra = [
        name
        for name, weight in (("relation", settings.relation_weight), ("features", settings.feature_weight))
        if weight
    ]
    return " + ".join(["task", *extra])
