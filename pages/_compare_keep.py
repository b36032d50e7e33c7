"""Keeping what was drawn on Compare as runs: the plan, uniform bits, fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from mpqdm_core.errors import DataError
from pages._ablation_store import library
from pages._compare_asked import OWN
from pages._compare_work import Compared, Variant, comparison_key, plans_of, read_order
from pages._context import as_sentences
from pages._distill_adapters import Offered
from pages._html import outcome
from pages._plan_key import plan_if_any
from pages._session import workspace
from pages._workspace import COMPARISONS


def on_keep(
    request: gr.Request,
    session: str | None,
    plan: Any,
    classes: Sequence[Any] | None,
    seed: Any,
    count: Any,
    sampler: Any = OWN,
    prompts: Any = "",
    adapters: Sequence[str] | None = None,
) -> str:
    """Keep every model of the comparison that is shown."""
    from pages._compare_adapters import chosen_of

    with as_sentences():
        solved = plan_if_any(plan)
        tuned = chosen_of(adapters)
        order = read_order(workspace(session), classes, seed, count, sampler, prompts)
        found = None if solved is None else COMPARISONS.get(comparison_key(solved, order, tuned))
        if solved is None or found is None:
            raise DataError("draw the pictures with these settings first, then keep them")
        kept = [_keep(request, solved, found, variant, tuned) for variant in found.variants]
        return outcome(f"{len(kept)} runs kept: they are on the Ablation tab.")


def _keep(
    request: gr.Request, solved: Any, found: Compared, variant: Variant, tuned: Sequence[Offered]
) -> str:
    from mpqdm_core.board.keep import compared_run
    from mpqdm_core.board.measured import device_of

    plans = {key: bits for key, _, bits in plans_of(solved)}
    adapter = next((offer.adapter for offer in tuned if offer.key == variant.key), None)
    bits = plans.get(variant.key) if adapter is None else getattr(adapter, "plan", None)
    order, packed, denoiser = found.order, variant.packed, solved.work.denoiser
    names = [found.class_names[kind] for kind in order.labels] if order.labels else _seeds(order.seeds)
    settings = solved.choice.settings
    computed = compared_run(
        kind="comparison" if adapter is None else "finetune",
        title=f"{variant.title}, compared",
        comparison=variant.comparison,
        pictures=_finished(variant, found),
        reference=_finished(found.reference, found),
        names=names,
        settings={
            "model": solved.work.source,
            "policy": "uniform" if variant.key == "uniform" else settings.policy,
            "average_bits": settings.average_bits,
            "activation_bits": solved.choice.activation_bits,
            "grid": solved.choice.rounding.grid,
            "finetuning": "none" if adapter is None else variant.title,
            "seed": order.seeds[0],
            "pictures": len(order.seeds),
            **({} if order.sampler == OWN else {"sampler": order.sampler}),
        },
        hashes={"model": str(denoiser.content_hash)} if denoiser is not None else {},
        device="" if denoiser is None else device_of(denoiser),
        plan=bits,
        packed=packed,
    )
    return library(request).store.add(computed.run, computed.files).id


def _finished(variant: Variant, found: Compared) -> np.ndarray:
    """(N, H, W, 3) the finished pictures: the last tile of every row of the sheet."""
    rows = variant.sheet.reshape(len(found.order.seeds), found.tile, -1, 3)
    return np.ascontiguousarray(rows[:, :, -found.tile :])


def _seeds(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]
