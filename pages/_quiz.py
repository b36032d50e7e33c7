"""The quiz: two pictures from the same noise, which one is quantized? Pictures ship with the model."""

from __future__ import annotations

import gradio as gr

from mpqdm_core.errors import LoadError
from pages import _compare_view
from pages._bridge import dumps
from pages._context import QUIET
from pages._learn_text import table
from pages._plain_view import plain_view
from pages._precomputed import DEFAULT_MODEL


def build() -> gr.HTML:
    """Create the view inside the open tab."""
    return plain_view(
        "quiz",
        label="Which one is quantized?",
        elem_id="quiz",
        scripts=("core", "learn_math", "learn_tools", "quiz"),
        needs=("node", "math", "toolbox"),
        pair="",
        words="",
    )


def wire(opened: gr.Tab, quiz: gr.HTML) -> None:
    """Send the pictures when the tab is opened."""
    opened.select(on_open, None, quiz, **QUIET)


def on_open() -> gr.HTML:
    """The pictures that ship with the bundled model, and the words around them."""
    try:
        pair = _compare_view.shipped_pair(DEFAULT_MODEL)
    except LoadError:  # damaged: the view says that there are none
        pair = ""
    return gr.HTML(pair=pair, words=dumps(table("quiz")))
