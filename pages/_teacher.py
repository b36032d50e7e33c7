"""For teachers: a form that builds links to the explorer, with controls hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlparse

import gradio as gr

from mpqdm_core import permalink
from mpqdm_core.permalink import TABS, PageState
from pages import _guide
from pages._bridge import dumps
from pages._context import LIVE
from pages._learn_text import LANGUAGE, lessons, table, text
from pages._plain_view import plain_view
from pages._precomputed import DATA


@dataclass(kw_only=True)
class Teacher:
    """Components of the form."""

    start: gr.Textbox
    tab: gr.Dropdown
    model: gr.Dropdown
    weight_bits: gr.Slider
    seed: gr.Number
    hide: gr.CheckboxGroup
    lesson: gr.Dropdown
    link: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """In the order of `on_change`."""
        return [self.tab, self.model, self.weight_bits, self.seed, self.hide, self.lesson]


def build() -> Teacher:
    """Create the form inside the open tab."""
    gr.Markdown(text("teacher"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            page = _form()
        with gr.Column(min_width=300):
            page.link = plain_view(
                "link",
                label="The link",
                elem_id="teacher-link",
                scripts=("core", "learn_tools", "link"),
                needs=("node", "speaker"),
                link="",
            )
            gr.Markdown(text("teacher_notes"), elem_classes=["mpq-note"])
    return page


def wire(demo: gr.Blocks, page: Teacher) -> None:
    """Write the link anew whenever something changes."""
    changes = [widget.change for widget in (page.start, *page.inputs)]
    gr.on([demo.load, *changes], on_change, [page.start, *page.inputs], page.link, **LIVE)
    page.start.input(on_start, page.start, page.inputs, **LIVE)


def on_start(address: str | None) -> tuple[Any, ...]:
    """Set the form as a pasted link says."""
    state = read(address)
    return state.tab, state.model, state.weight_bits, state.seed, list(state.hide), state.lesson


def on_change(
    address: str | None, tab: str, model: str, bits: Any, seed: Any, hide: Sequence[str], lesson: Any
) -> gr.HTML:
    """Write the link: the pasted one with what the form says."""
    asked = {"tab": tab, "m": model, "w": str(bits), "sd": str(seed), "lesson": str(lesson or 0)}
    form = permalink.decode({**asked, "hide": ",".join(hide or ())})
    names = ("tab", "model", "weight_bits", "seed", "hide", "lesson")
    state = replace(read(address), **{name: getattr(form, name) for name in names})
    return gr.HTML(link=dumps({"query": permalink.encode(state), "words": table("link")}))


def read(address: str | None) -> PageState:
    """The state in a link; an empty or damaged one is a fresh page."""
    try:
        return permalink.decode(dict(parse_qsl(urlparse(address or "").query)))
    except ValueError:  # an address no parser takes, such as one with half a bracket
        return PageState()


def _form() -> Teacher:
    words, start = table("link"), PageState()
    models = sorted(path.parent.name for path in DATA.glob("*/model.json")) or [start.model]
    titles = [
        (str(words["no_lesson"]), 0),
        *((f"{each.number}. {each.title}", each.number) for each in lessons()),
    ]
    names = dict((name, label) for label, name in _guide.labels(LANGUAGE))
    return Teacher(
        start=gr.Textbox(label=words["start"], info=words["start_info"], elem_id="teacher-start"),
        tab=gr.Dropdown(
            [(names[name], name) for name in TABS], value="budget", label=words["tab"], elem_id="teacher-tab"
        ),
        model=gr.Dropdown(models, value=start.model, label=words["model"], elem_id="teacher-model"),
        weight_bits=gr.Slider(1, 8, value=start.weight_bits, step=0.05, label=words["bits"]),
        seed=gr.Number(0, precision=0, minimum=0, label=words["seed"], info=words["seed_info"]),
        hide=gr.CheckboxGroup(
            [(label, name) for label, name in _guide.labels(LANGUAGE)],
            value=[],
            label=words["hide"],
            elem_id="teacher-hide",
        ),
        lesson=gr.Dropdown(titles, value=0, label=words["lesson"], info=words["lesson_info"]),
        link=gr.HTML(render=False),
    )
