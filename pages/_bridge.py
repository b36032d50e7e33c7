"""Linked views: gr.HTML with the scripts of assets/js, because gr.Plot has no clicks and loses its zoom."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

import gradio as gr
import orjson

from pages._text import ASSETS
from pages._theme import SCRIPTS, head, plotly_script

# What never changes stands in the template: a view in a tab not yet opened forgets its other properties when
# one of them is updated.
TEMPLATE = (
    "<div class='mpq-view' data-kind='{kind}' data-label='{label}' data-height='{height}' data-name='{name}'>"
    "</div>"
)


def serve_scripts() -> None:
    """Let the page fetch plotly.js and the project's own scripts from this server."""
    gr.set_static_paths([plotly_script(), *(ASSETS / "js" / f"{name}.js" for name in SCRIPTS)])


@cache
def _mount() -> str:
    return (ASSETS / "js" / "mount.js").read_text(encoding="utf-8")


def view(kind: str, *, label: str, elem_id: str, height: int = 420, **props: Any) -> gr.HTML:
    """A view of `kind` (a name registered in assets/js); update it by returning gr.HTML(<prop>=...)."""
    return gr.HTML(
        html_template=TEMPLATE.format(
            kind=kind, label=escape(label, quote=True), height=height, name=elem_id
        ),
        js_on_load=_mount(),
        head=head(),
        elem_id=elem_id,
        elem_classes=[f"mpq-{kind}"],
        **props,
    )


def dumps(value: Any) -> str:
    """Compact JSON for a view; NaN and infinities become null, which plotly draws as a gap."""
    return orjson.dumps(value).decode()
