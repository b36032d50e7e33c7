"""From a solved budget to what the Bit budget page shows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mpqdm_core.errors import BudgetError, MpqdmError
from pages import _budget_solve as solving
from pages._bridge import dumps
from pages._budget_solve import Solved
from pages._budget_tables import NotMeasuredError, UnknownModelError
from pages._figures_budget import ALONE_BITS, frontier_figure, layer_error_figure, search_figure
from pages._figures_map import bits_map
from pages._html import Card, cards, shares, warning
from pages._size import size_cards


def everything(solved: Solved, selection: tuple[str | None, int | None]) -> tuple[Any, ...]:
    """All outputs of the page, in the order of `budget.OUTPUTS`."""
    plan, table = solved.allocation.plan, solved.table
    curves = solving.frontier_curves(solved)
    uniform = uniform_allocation(solved)
    return (
        warning(" ".join(solved.allocation.notes)),
        summary(solved),
        gr.update(
            fig=dumps(bits_map(table.layer_names, table.layer_start, plan.bits, table.weights_per_channel))
        ),
        gr.update(
            fig=dumps(frontier_figure(curves, (plan.mean_bits, float(solved.allocation.predicted_error))))
        ),
        gr.update(
            fig=dumps(
                layer_error_figure(
                    table.layer_names,
                    solved.allocation.per_layer_error,
                    None if uniform is None else uniform.per_layer_error,
                    solving.alone(solved, ALONE_BITS),
                )
            )
        ),
        search(solved, selection),
        solved.key,
        gr.update(chips=chips(solved)),
        gr.update(visible=False),  # there is nothing to measure
    )


def refused(error: MpqdmError) -> tuple[Any, ...]:
    """The sentence of a budget that cannot be met; everything else stays as it was."""
    sentence = str(error)
    if isinstance(error, BudgetError) and f"{error.minimum:g}" not in sentence:
        sentence += f" (feasible: {error.minimum:.2f} to {error.maximum:.2f} bits)"
    if isinstance(error, UnknownModelError):  # what is there belongs to another model
        empty = (gr.update(fig="") for _ in range(4))
        return (warning(sentence), "", *empty, None, gr.skip(), gr.update(visible=False))
    if isinstance(error, NotMeasuredError):  # figures of another rounding would be taken for these
        skipped = (gr.skip() for _ in range(4))
        sentence += ". Maps and curves are those from before."
        return (warning(sentence), "", *skipped, None, gr.skip(), gr.update(visible=True))
    return (warning(sentence), *(gr.skip() for _ in range(7)), gr.update(visible=False))


def search(solved: Solved, selection: tuple[str | None, int | None]) -> dict[str, Any]:
    """The paper's search curve of the selected layer."""
    layer = selection[0] if selection[0] in solved.table.layer_names else None
    curve = solved.allocation.search_curves.get(layer) if layer else None
    return gr.update(fig=dumps(search_figure(layer, curve)))


def summary(solved: Solved) -> str:
    """Cards and the shares of bit-widths."""
    return cards([*error_cards(solved), *size_cards(solved)]) + shares(share_by_bits(solved))


def error_cards(solved: Solved) -> list[Card]:
    """Mean bits and the predicted error against uniform bits."""
    allocation, average = solved.allocation, solved.choice.settings.average_bits
    found = [
        Card(name="Mean weight bits", value=f"{allocation.plan.mean_bits:.3f}", note=f"asked for {average:g}")
    ]
    reference = allocation.predicted_error_uniform
    if reference is None or not np.isfinite(reference) or not reference:
        return [
            *found,
            Card(name="Predicted error", value=f"{allocation.predicted_error:.3g}", note=_weighting(solved)),
        ]
    change = allocation.predicted_error / reference - 1.0
    mood = "good" if change < -1e-6 else "bad" if change > 1e-6 else ""
    note = f"{allocation.predicted_error:.3g} instead of {reference:.3g}; {_weighting(solved)}"
    return [
        *found,
        Card(name="Predicted error against uniform", value=f"{change:+.1%}", note=note, mood=mood),
    ]


def share_by_bits(solved: Solved) -> dict[int, float]:
    """Share of the quantizable weights at each bit-width."""
    plan = solved.allocation.plan
    weights = np.repeat(plan.weights_per_channel, np.diff(plan.layer_start))
    counts = np.bincount(plan.bits, weights=weights, minlength=9)
    return {bits: float(counts[bits] / weights.sum()) for bits in range(1, 9)}


def uniform_allocation(solved: Solved) -> Any | None:
    """Uniform bits at the same budget, if that budget is a whole number and the locks allow it."""
    return solving.at_same_budget(solved, policy="uniform")


def chips(solved: Solved) -> str:
    """What the header says."""
    bits = solved.choice.activation_bits
    return dumps(
        [
            ("model", solved.work.title),
            ("weights", f"{solved.allocation.plan.mean_bits:.2f} bits"),
            ("activations", "full precision" if bits is None else f"{bits} bits"),
        ]
    )


def plan_text(solved: Solved) -> str:
    """The plan as JSON, one digit a channel."""
    return str(solved.allocation.plan.to_json())


def _weighting(solved: Solved) -> str:
    alone = "" if solved.table.layer_effect is not None else ", from gradients alone"
    words = {
        "none": "output error, summed",
        "relative": "relative to each channel's output",
        "sensitivity": f"error of the predicted noise{alone}",
    }
    return words[solved.choice.settings.weighting]


def plan_file(solved: Solved) -> str:
    """Path of the plan as a file to download."""
    folder = Path(tempfile.mkdtemp(prefix="mpqdm-"))
    solved.allocation.plan.save(folder / "plan.json")
    return str(folder / "plan.json")
