"""Learn: ten lessons with live widgets, on a page of their own that needs no model."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gradio as gr
import numpy as np

from mpqdm_core.errors import MpqdmError
from pages import _quiz, _teacher
from pages._bridge import dumps
from pages._context import QUIET
from pages._learn_text import LANGUAGE, Lesson, glossary, languages, lessons, table
from pages._plain_view import CHAPTERS, COURSE, plain_view
from pages._precomputed import DEFAULT_MODEL, Precomputed

TITLE, PATH = "Learn", "/learn"
TABS = ("lessons", "quiz", "glossary", "teacher")
LATEX = [{"left": "$$", "right": "$$", "display": True}]


def build(demo: gr.Blocks) -> None:
    """Add the route; the main page must be closed."""
    words = table("words")
    with demo.route(TITLE, PATH, show_in_navbar=False):
        gr.Navbar(visible=False)  # the header has the link to the other page
        _header()
        with gr.Tabs(elem_id="learn-tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab(words["lessons"], id="lessons", elem_id="tab-lessons"):
                course = _lessons()
            with gr.Tab(words["quiz"], id="quiz", elem_id="tab-quiz"):
                _quiz.wire(_quiz.build())
            with gr.Tab(words["glossary"], id="glossary", elem_id="tab-glossary"):
                gr.Markdown(
                    glossary(), latex_delimiters=LATEX, elem_id="glossary", elem_classes=["learn-glossary"]
                )
            with gr.Tab(words["teacher"], id="teacher", elem_id="tab-teacher"):
                _teacher.wire(demo, _teacher.build())
        demo.load(on_open, None, [course, tabs], **QUIET)


def _header() -> None:
    plain_view(
        "header",
        label="MPQ-DM Explorer",
        elem_id="learn-header",
        scripts=("core", "header"),
        needs=("node",),
        chips="",
        state="",
        selected="",
    )


def _lessons() -> gr.HTML:
    return plain_view(
        "lessons",
        label="Lessons",
        elem_id="lessons",
        scripts=COURSE,
        needs=("math", "toolbox", "lessons"),
        chapters=CHAPTERS,
        course="",
    )


def on_open(request: gr.Request) -> tuple[gr.HTML, Any]:
    """Send the texts in the language the link asks for, and open the tab it names."""
    asked, tab = request.query_params.get("lang"), request.query_params.get("open")
    language = str(asked) if asked in languages() else LANGUAGE
    shown = gr.HTML(course=dumps(course_of(language)))
    return shown, gr.Tabs(selected=tab) if tab in TABS else gr.skip()


def course_of(language: str) -> dict[str, object]:
    """Everything assets/js/learn.js shows."""
    outlier = heaviest_channel(DEFAULT_MODEL)
    return {
        "start": 1,
        "words": table("words", language),
        "glossary": table("glossary", language),
        "lessons": [_shown(lesson, outlier) for lesson in lessons(language)],
    }


def heaviest_channel(model: str) -> tuple[str, int] | None:
    """Layer and channel of the highest kurtosis in the shipped statistics; None when there are none."""
    shipped = Precomputed.find(model)
    try:
        stats = shipped.outliers() if shipped else None
    except MpqdmError:  # damaged: the explorer says so, a lesson opens it without a selection
        return None
    if stats is None:
        return None
    place = int(np.nanargmax(stats.weights["kurtosis"]))
    layer = int(np.searchsorted(stats.layer_start, place, side="right")) - 1
    return stats.layer_names[layer], place - int(stats.layer_start[layer])


def _shown(lesson: Lesson, outlier: tuple[str, int] | None) -> dict[str, object]:
    kept = [item.name for item in fields(lesson) if item.name not in ("opens", "at_outlier")]
    return {**{name: getattr(lesson, name) for name in kept}, "query": lesson.query(outlier)}
