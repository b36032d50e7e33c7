"""What a guest of the explorer gets: controls hidden by a link, a lesson's banner, shortcuts, the tour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from mpqdm_core import permalink
from mpqdm_core.permalink import HIDEABLE, TABS, PageState
from pages._bridge import dumps
from pages._context import QUIET
from pages._learn_text import LANGUAGE, languages, lessons, table
from pages._plain_view import plain_view

# What each group of controls is on the page; a tab is its button.
SELECTORS: dict[str, tuple[str, ...]] = {
    **{name: (f"#tab-{name}-button",) for name in TABS},
    "load": ("#source", "#folder", "#load"),
    "measure": ("#calibration-samples", "#measure"),
    "activations": ("#activation-bits", "#activations-full"),
    "policy": ("#policy",),
    "weighting": ("#weighting",),
    "scope": ("#scope",),
    "allowed": ("#allowed",),
    "more": ("#more-settings",),
    "locks": ("#overrides",),
    "plan": ("#take-plan",),
    "draw": ("#draw", "#count"),
    "sets": ("#set-count", "#measure-set"),
}


def build() -> gr.HTML:
    """Create the view; it shows nothing until a link, a key or a first visit asks for it."""
    return plain_view(
        "guide",
        label="Help",
        elem_id="guide",
        scripts=("core", "learn_tools", "guide"),
        needs=("node", "speaker"),
        guide="",
    )


def wire(guide: gr.HTML) -> None:
    """Read the link when the page opens."""
    block = gr.context.Context.root_block
    block.load(on_open, None, guide, **QUIET)


def on_open(request: gr.Request) -> gr.HTML:
    """Send what this link hides, its lesson, and the words."""
    return gr.HTML(guide=dumps(guide_of(dict(request.query_params))))


def guide_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Everything assets/js/guide.js shows; of the link only what is known goes in."""
    state = permalink.decode(query)
    asked = query.get("lang", LANGUAGE)
    language = asked if asked in languages() else LANGUAGE
    texts = table("guide", language)
    return {
        "words": texts["words"],
        "shortcuts": texts["shortcuts"],
        "tour": texts["tour"],
        "hide": [selector for name in state.hide for selector in SELECTORS.get(name, ())],
        "lesson": _lesson(state, language),
        "search": urlencode({"tour": query["tour"]} if query.get("tour") in ("0", "1") else {}),
    }


def labels(language: str = LANGUAGE) -> list[tuple[str, str]]:
    """(words, name) of everything a link can hide."""
    words = table("guide", language)["hide"]
    return [(str(words.get(name, name)), name) for name in HIDEABLE]


def _lesson(state: PageState, language: str) -> dict[str, Any] | None:
    found = next((lesson for lesson in lessons(language) if lesson.number == state.lesson), None)
    return found and {"number": found.number, "title": found.title, "text": found.explore}
