"""Notes that one writes on one's own runs: beside the name in the table, in every export, and searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.board.run import MAX_NOTE
from mpqdm_core.errors import DataError
from pages._ablation_store import library
from pages._ablation_sweep import board_of
from pages._context import LIGHT, LIVE, QUIET, as_sentences
from pages._html import outcome


@dataclass(kw_only=True)
class Notes:
    """Components of the part."""

    text: gr.Textbox
    write: gr.Button

    @classmethod
    def build(cls) -> Notes:
        """Create them."""
        with gr.Row(equal_height=False, elem_id="run-notes"):
            text = gr.Textbox(
                "",
                label="Note on the ticked runs",
                placeholder="Tick a run of your own, write what you saw, press Enter",
                info="Shown under the name, found by the filter, part of every export. Empty takes it away.",
                max_length=MAX_NOTE,
                elem_id="note-text",
                scale=4,
            )
            write = gr.Button("Write the note", elem_id="note-write", min_width=120)
        return cls(text=text, write=write)

    def wire(self, choice: gr.State, table: gr.HTML, notice: gr.HTML) -> None:
        """Show the note of a ticked run, and write one."""
        choice.change(on_choice, [choice, self.text], self.text, **LIVE)
        gr.on(
            [self.write.click, self.text.submit],
            on_write,
            [choice, self.text],
            [table, notice],
            **LIGHT,
            **QUIET,
        )


def on_choice(choice: dict[str, Any], text: str | None, request: gr.Request) -> Any:
    """Show the note of the run that is ticked alone, but never over what is being written."""
    ticked = list(choice.get("chosen", ()))
    if len(ticked) != 1:
        return gr.skip()
    with as_sentences():
        held = library(request)
        note = next((run.note for run in held.chosen(ticked)), "")
        written = text and text not in {run.note for run in held.store.runs()}
        return gr.skip() if written or note == (text or "") else note


def on_write(choice: dict[str, Any], text: str | None, request: gr.Request) -> tuple[Any, str]:
    """Write the note on the ticked runs that are one's own."""
    with as_sentences():
        held = library(request)
        own = [name for name in choice.get("chosen", ()) if held.is_own(name)]
        if not own:
            raise DataError("tick runs of your own first: shipped ones cannot be written on")
        for name in own:
            held.store.note(name, (text or "").strip())
        done = "written on" if (text or "").strip() else "taken from"
        words = outcome(f"Note {done} {len(own)} run{'s' if len(own) > 1 else ''}.")
        return gr.HTML(board=board_of(held, choice)), words
