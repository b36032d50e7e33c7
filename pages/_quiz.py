"""The quiz: two pictures from the same noise, which one is quantized? Pictures ship with the model."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mpqdm_core.errors import LoadError
from pages._bridge import dumps
from pages._context import QUIET
from pages._learn_text import table
from pages._model_view import png_address
from pages._plain_view import plain_view
from pages._precomputed import DEFAULT_MODEL, Precomputed


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


def wire(quiz: gr.HTML) -> None:
    """Send the pictures when the view appears, which is when its tab is opened."""
    quiz.ask(on_open, None, quiz, **QUIET)


def on_open() -> gr.HTML:
    """The pictures that ship with the bundled model, and the words around them."""
    shipped = Precomputed.find(DEFAULT_MODEL)
    try:
        pair = _pictures(shipped.folder) if shipped else ""
    except LoadError:  # damaged: the view says that there are none
        pair = ""
    return gr.HTML(pair=pair, words=dumps(table("quiz")))


@lru_cache(maxsize=4)
def _pictures(folder: Path) -> str:
    """What assets/js/quiz.js shows: of each sheet the finished pictures, which are its last column.

    Raises:
        LoadError: a file cannot be read, or is not what it should be.
    """
    shipped = Precomputed(folder=folder)
    samples = shipped.samples()
    if samples is None:
        return ""
    names = shipped.card().get("class_names", ())
    try:
        size, seeds = int(samples["tile"]), samples["seeds"]
        labels = [str(names[label]) for label in samples["labels"]] if samples.get("labels") else seeds
        return dumps(
            {
                "tile": size,
                "reference": _column(shipped, samples["reference"], size),
                "variants": [_column(shipped, entry, size) for entry in samples["variants"]],
                "samples": [{"label": str(label)} for label in labels],
            }
        )
    except (KeyError, IndexError, TypeError, ValueError, OSError) as err:
        raise LoadError(f"samples.json in {folder.name} is damaged: {err!r}") from err


def _column(shipped: Precomputed, entry: dict[str, Any], size: int) -> dict[str, str]:
    with Image.open(io.BytesIO(shipped.picture(entry["file"]))) as sheet:
        finished = sheet.convert("RGB").crop((sheet.width - size, 0, sheet.width, sheet.height))
    return {"key": str(entry["key"]), "title": str(entry["title"]), "src": png_address(finished)}
