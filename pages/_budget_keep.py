"""Keeping the plan of the Bit budget page as a run of the Ablation board."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mpqdm_core.board.keep_plan import allocated_run
from pages._ablation_store import library
from pages._ablation_work import model_hash
from pages._budget_solve import Solved
from pages._context import as_sentences
from pages._html import outcome
from pages._plan_key import plan_of
from pages._size import bit_report
from pages._work import quant_settings

NO_PLAN = "there is no plan yet: move a slider first"
KEPT = "Kept as a run, {}: it is on the Ablation tab."
KNOWN = "Kept already, {}: it is on the Ablation tab."


def on_keep(request: gr.Request, plan: Any) -> str:
    """Keep the plan that is shown; one that is kept already stays as it is, with its note."""
    with as_sentences():
        solved = plan_of(plan, NO_PLAN)
        run, text = _run(solved)
        store = library(request).store
        if store.get(run.id) is not None:
            return outcome(KNOWN.format(run.title))
        store.add(run, [text])
        return outcome(KEPT.format(run.title))


def _run(solved: Solved) -> tuple[Any, bytes]:
    choice, settings = solved.choice, solved.choice.settings
    inputs = "fp" if choice.activation_bits is None else str(choice.activation_bits)
    model = model_hash(solved.work)
    return allocated_run(
        title=f"{settings.policy} W{settings.average_bits:g}A{inputs}, plan only",
        plan=solved.allocation.plan,
        settings={
            "model": solved.work.source,
            "policy": settings.policy,
            "average_bits": settings.average_bits,
            "activation_bits": choice.activation_bits,
            "weighting": settings.weighting,
            "scope": settings.scope,
            "grid": choice.rounding.grid,
            "plan.extra_groups": settings.extra_groups,  # with a dot: in files, not in the table
            "plan.locked_layers": len(settings.locked),
            "plan.other_exempt_layers": len(solved.changed),
        },
        hashes={"table": solved.table.content_hash} | ({} if model is None else {"model": model}),
        layers=solved.layers,
        rounding=quant_settings(solved.table, choice.activation_bits),
        report=bit_report(solved),
        predicted_error=float(solved.allocation.predicted_error),
    )
