"""The part of the Compare page that measures sets of pictures as sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pages import _compare_sets as sets
from pages._context import HEAVY, QUIET, Context, as_sentences
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._plan_key import plan_of
from pages._session import workspace
from pages._sliders import may_be_empty
from pages._text import text
from pages._work import job

STOPPED = "Stopped. The table is the one from before."


@dataclass(kw_only=True)
class SetsPanel:
    """Components of the panel."""

    count: gr.Slider
    measure: gr.Button
    stop: gr.Button
    status: gr.HTML
    result: gr.HTML

    @classmethod
    def build(cls) -> SetsPanel:
        """Create the components."""
        gr.Markdown("As a set", elem_classes=["mpq-title"])
        gr.Markdown(text("compare_sets"), elem_classes=["mpq-note"])
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                count = gr.Slider(
                    sets.SMALLEST,
                    sets.LARGEST,
                    value=sets.USUAL,
                    step=50,
                    precision=0,
                    label="Pictures of each model",
                    elem_id="set-count",
                    info="All classes take turns, one seed each.",
                )
                measure = gr.Button("Measure as a set", elem_id="measure-set")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-set")
                status = gr.HTML(elem_id="set-status")
            with gr.Column(scale=8, min_width=320):
                result = gr.HTML(elem_id="set-metrics")
        return cls(count=may_be_empty(count), measure=measure, stop=stop, status=status, result=result)

    def wire(self, ctx: Context) -> None:
        """Connect the events."""
        measuring = self.measure.click(
            on_measure_set,
            [ctx.plan, self.count],
            [self.status, self.stop, self.result],
            **QUIET,
            **HEAVY,
        )
        ended = [self.status, self.stop]
        measuring.failure(lambda: ("", gr.Button(visible=False)), None, ended, **QUIET)
        self.stop.click(
            lambda: (outcome(STOPPED), gr.Button(visible=False)), None, ended, cancels=[measuring], **QUIET
        )
        ctx.on_model.append((on_model, [ctx.session], [self.measure, self.status, self.result]))


def on_model(session: str | None) -> tuple[Any, ...]:
    """Offer the button where the encoder knows the model's pictures, else say why not."""
    with as_sentences():
        work = workspace(session)
        if sets.is_judged(work):
            return gr.Button(interactive=True), "", ""
        return gr.Button(interactive=False), outcome(sets.NOT_JUDGED.format(title=work.title)), ""


def on_measure_set(plan: Any, count: Any) -> Iterator[tuple[Any, ...]]:
    """Draw and measure sets, with progress."""
    with as_sentences():
        for event in stream(job(sets.measure_sets, plan_of(plan), sets.read_count(count))):
            if isinstance(event, Step):
                words = progress(event.done, event.total, event.message, event.seconds)
                yield words, gr.Button(visible=True), gr.skip()
            else:
                words = outcome(f"Measured in {event.seconds:.0f} s, on this server's CPU.")
                yield words, gr.Button(visible=False), sets.sets_table(event.value)
