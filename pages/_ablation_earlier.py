"""Sweeps of before: chosen again, so that what was stopped can go on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mpqdm_core.board.sweep import SweepSettings
from mpqdm_core.errors import LoadError
from pages._ablation_builder import Builder, widget_values
from pages._ablation_store import library
from pages._context import LIVE, Context, as_sentences

MAX_SWEEPS = 20


def build() -> gr.Dropdown:
    """The list, hidden while there is none."""
    return gr.Dropdown(
        [],
        value=None,
        visible=False,
        label="Earlier sweeps",
        elem_id="sweep-earlier",
        info="Choosing one sets everything below as it was; cells that are kept are not computed again.",
    )


def wire(ctx: Context, earlier: gr.Dropdown, builder: Builder) -> None:
    """Fill the list when the tab opens, and set the widgets when one is chosen."""
    ctx.opened["ablation"].select(on_list, None, earlier, **LIVE)
    earlier.input(on_restore, earlier, builder.controls, **LIVE)


def on_list(request: gr.Request) -> Any:
    """The sweeps that can be chosen, the latest first."""
    with as_sentences():
        choices = []
        for name, document in library(request).store.sweeps()[:MAX_SWEEPS]:
            try:
                choices.append((_title(SweepSettings.from_dict(document)), name))
            except LoadError:  # of a newer version
                continue
        return gr.Dropdown(choices=choices, value=None, visible=bool(choices))


def on_restore(sweep: str | None, request: gr.Request) -> list[Any]:
    """Set every widget as the sweep was."""
    with as_sentences():
        documents = dict(library(request).store.sweeps())
        if not sweep or sweep not in documents:
            raise LoadError("this sweep is not kept any more")
        return widget_values(SweepSettings.from_dict(documents[sweep]))


def _title(settings: SweepSettings) -> str:
    bits = ", ".join(f"{value:g}" for value in settings.average_bits)
    return f"{len(settings.cells())} cells: {', '.join(settings.policies)} at {bits} bits"
