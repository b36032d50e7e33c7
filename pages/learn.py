"""Learn: ten lessons with live widgets, on a page of their own that needs no model."""

from __future__ import annotations

import gradio as gr
import numpy as np

from mpqdm_core.errors import MpqdmError
from pages._bridge import dumps
from pages._context import QUIET
from pages._learn_text import LANGUAGE, Lesson, languages, lessons, table
from pages._plain_view import CHAPTERS, COURSE, plain_view
from pages._precomputed import DEFAULT_MODEL, Precomputed

TITLE, PATH = "Learn", "/learn"


def build(demo: gr.Blocks) -> None:
    """Add the route; the main page must be closed."""
    with demo.route(TITLE, PATH, show_in_navbar=False):
        course = plain_view(
            "lessons",
            label="Lessons",
            elem_id="lessons",
            scripts=COURSE,
            needs=("math", "toolbox", "lessons"),
            chapters=CHAPTERS,
            course="",
        )
        demo.load(on_open, None, course, **QUIET)


def on_open(request: gr.Request) -> gr.HTML:
    """Send the texts in the language the link asks for."""
    asked = str(request.query_params.get("lang", LANGUAGE))
    return gr.HTML(course=dumps(course_of(asked if asked in languages() else LANGUAGE)))


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
    names = (
        "number",
        "id",
        "widget",
        "title",
        "html",
        "task",
        "hint",
        "done",
        "explore",
        "formula",
        "source",
    )
    return {
        **{name: getattr(lesson, name) for name in names},
        "words": lesson.words,
        "query": lesson.query(outlier),
    }
