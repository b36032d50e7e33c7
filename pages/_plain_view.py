"""Views without charts: gr.HTML with a few scripts of assets/js, so that a page need not load plotly."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

import gradio as gr

from pages._text import ASSETS

COURSE = ("core", "learn_math", "learn_tools", "learn_rounding", "learn_layers", "learn_evidence", "learn")
CHAPTERS = 3  # scripts among COURSE that hold lessons
TEMPLATE = (
    "<div class='mpq-view' data-kind='{kind}' data-label='{label}' data-name='{name}'"
    " data-needs='{needs}' data-chapters='{chapters}'></div>"
)


def plain_view(
    kind: str,
    *,
    label: str,
    elem_id: str,
    scripts: tuple[str, ...],
    needs: tuple[str, ...] = (),
    chapters: int = 0,
    **props: Any,
) -> gr.HTML:
    """A view of `kind`, which one of `scripts` registers; update it by returning gr.HTML(<prop>=...).

    Args:
        kind: name in assets/js.
        label: what it is, for whoever cannot see it.
        elem_id: of the component.
        scripts: files of assets/js without their ending.
        needs: what those scripts must have put on the page before the view can start.
        chapters: how many scripts of lessons must have arrived.
        props: see `gr.HTML`.
    """
    files = [ASSETS / "js" / f"{name}.js" for name in scripts]
    gr.set_static_paths([*files])
    template = TEMPLATE.format(
        kind=kind,
        label=escape(label, quote=True),
        name=elem_id,
        needs=" ".join(needs),
        chapters=chapters,
    )
    return gr.HTML(
        html_template=template,
        js_on_load=_mount(),
        head="".join(f'<script src="gradio_api/file={file}"></script>' for file in files),
        elem_id=elem_id,
        elem_classes=[f"mpq-{kind}"],
        **props,
    )


@cache
def _mount() -> str:
    return (ASSETS / "js" / "learn_mount.js").read_text(encoding="utf-8")
