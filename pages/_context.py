"""What the pages share: the header, the tabs, one selection, one session, and the widgets a link restores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mpqdm_core.errors import Cancelled, MpqdmError
from pages._jobs import OUT_OF_MEMORY

HEAVY = {"concurrency_id": "heavy", "concurrency_limit": 1}  # one model computes at a time
LIGHT = {"concurrency_id": "light", "concurrency_limit": 8}  # arithmetic on tables already measured
# Nothing is hidden on no component: else gradio tells every output of every event so far about each event's
# progress, which took more than a second of the first page.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}
# Follows a slider while it moves. Past gradio's queue, whose messages cost as much as the answer; but only
# the queue tells the page that a state changed, so what sets a state that others follow is FOLLOWED.
LIVE = {**QUIET, "queue": False, "trigger_mode": "always_last"}
FOLLOWED = {**LIGHT, **QUIET, "trigger_mode": "always_last"}
# For events that carry data, such as a clicked point: of several while one is on its way, gradio's
# "always_last" runs again with the data of the first. So all run, one after the other, and the last one wins.
CLICK = {"concurrency_id": "click", "concurrency_limit": 1, **QUIET, "trigger_mode": "multiple"}


@dataclass(kw_only=True)
class Context:
    """Components that more than one page touches."""

    header: gr.HTML
    tabs: gr.Tabs
    session: gr.State  # key of the workspace this visitor works on
    selection: gr.State  # (layer name or None, channel or None)
    locks: gr.State  # layer name -> bits
    plan: gr.State  # key of the allocation shown on the Bit budget page, or None
    run: gr.BrowserState  # id of this browser's fine-tuning run, or ""
    ticks: gr.Timer  # runs while that run does
    picker: Any = None  # Compare's list of fine-tuned and packed models
    opened: dict[str, gr.Tab] = field(default_factory=dict)  # by the name in the link
    linked: dict[str, Any] = field(default_factory=dict)  # name in PageState -> widget
    on_model: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)
    on_plan: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)
    on_select: list[tuple[Callable[..., Any], list[Any], list[Any]]] = field(default_factory=list)

    @property
    def after_opening(self) -> list[tuple[Callable[..., Any], list[Any], list[Any]]]:
        """What follows when another model is opened, in this order: its first plan is made by one of them."""
        return [*self.on_model, *self.on_plan]


@contextmanager
def as_sentences() -> Iterator[None]:
    """Turn expected failures into a message to act on; everything else stays an error of ours."""
    try:
        yield
    except Cancelled as err:
        raise gr.Error(str(err) or "Stopped.", title="Stopped", print_exception=False) from err
    except MpqdmError as err:
        raise gr.Error(str(err), title="This did not work", print_exception=False) from err
    except MemoryError as err:
        raise gr.Error(OUT_OF_MEMORY, title="Out of memory", print_exception=False) from err


def selected(event: gr.EventData) -> tuple[str, int | None]:
    """The cell a linked map reports: layer name, and channel where a cell is one output channel."""
    data = event._data or {}
    channel = data.get("channel")
    return str(data.get("layer", "")), None if channel is None else int(channel)
