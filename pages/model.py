"""Model: where it comes from, what it consists of, what is open, and measuring it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pages import _model_picker as picking
from pages import _model_view as showing
from pages import _open_models as memory
from pages._bridge import dumps, view
from pages._context import CLICK, HEAVY, LIVE, QUIET, Context, as_sentences, selected
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._model_picker import Picker
from pages._precomputed import DEFAULT_MODEL
from pages._session import workspace
from pages._text import text
from pages._unfinished import keeps_unfinished
from pages._work import bundled_names, job, measure

UNCHANGED = "Nothing has changed."  # why was said by the failure itself
STOPPED = "Stopped. What was there before is unchanged; a download{} goes on from where it was."
MEASUREMENT = " or a measurement"  # where it is kept


@dataclass(kw_only=True)
class Model:
    """Components of the page."""

    picker: Picker
    measure: gr.Button
    samples: gr.Slider
    shelf: gr.HTML
    stop: gr.Button
    status: gr.HTML
    pictures: gr.HTML
    summary: gr.HTML
    overview: gr.HTML
    parts: gr.HTML
    layers: gr.HTML
    exempt: gr.HTML
    to_outliers: gr.Button

    @property
    def shown(self) -> list[Any]:
        """What another model changes, in the order of `on_show`; the header comes after."""
        return [
            self.pictures,
            self.summary,
            self.overview,
            self.parts,
            self.layers,
            self.exempt,
            self.shelf,
            self.picker.bundled,
        ]


def build(ctx: Context) -> Model:
    """Create the components of the tab."""
    gr.Markdown(text("model"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=290):
            picker = picking.build()
            stop = gr.Button("Stop", variant="stop", elem_id="stop-model", visible=False)
            status = gr.HTML(elem_id="model-status")
            with gr.Accordion("Measure again", open=False):
                gr.Markdown(text("measure"), elem_classes=["mpq-note"])
                samples = gr.Slider(
                    4,
                    128,
                    value=32,
                    step=4,
                    precision=0,
                    label="Pictures to calibrate on",
                    elem_id="calibration-samples",
                    info="More pictures see rarer inputs and take longer.",
                )
                measure_button = gr.Button("Measure", elem_id="measure")
            with gr.Accordion("Models in memory", open=False):
                gr.Markdown(text("model_memory"), elem_classes=["mpq-note"])
                shelf = view("shelf", label="Models in memory", elem_id="shelf", height=0, models="")
        with gr.Column(scale=8, min_width=320):
            pictures = gr.HTML(elem_id="pictures")
            summary = gr.HTML(elem_id="model-summary")
            gr.Markdown("Where its outliers are · click a channel", elem_classes=["mpq-title"])
            overview = view(
                "plot",
                label="Kurtosis of every channel: a row for each layer. Arrow keys move the selection.",
                elem_id="overview",
                fig=showing.first_overview(DEFAULT_MODEL),  # in the page itself: seen before any event ran
            )
            to_outliers = gr.Button("Look at the outliers →", variant="primary", elem_id="to-outliers")
    with gr.Row(equal_height=False):
        with gr.Column(scale=8, min_width=320):
            gr.Markdown(
                "Layers · open a branch, click a layer to select it everywhere", elem_classes=["mpq-title"]
            )
            layers = view("tree", label="Layers of the network", elem_id="layers", height=0, tree="")
        with gr.Column(scale=4, min_width=290):
            gr.Markdown("What it is made of", elem_classes=["mpq-title"])
            parts = gr.HTML(elem_id="model-parts")
    with gr.Accordion("Layers outside the budget", open=False):
        exempt = gr.HTML(elem_id="exempt")
    return Model(
        picker=picker,
        measure=measure_button,
        samples=samples,
        shelf=shelf,
        stop=stop,
        status=status,
        pictures=pictures,
        summary=summary,
        overview=overview,
        parts=parts,
        layers=layers,
        exempt=exempt,
        to_outliers=to_outliers,
    )


def wire(ctx: Context, page: Model) -> None:
    """Connect the events of the tab."""
    ends = {"inputs": None, "outputs": [page.status, page.stop], **QUIET}
    loading, others = picking.wire(ctx, page.picker, page.status, page.stop)
    shown = (on_show, [ctx.session], [*page.shown, ctx.header])  # bits in the header come from the budget
    bits = [ctx.linked[name] for name in ("activation_bits", "activations_full")]
    measuring = page.measure.click(
        on_measure,
        [ctx.session, page.samples, *bits],
        [page.status, ctx.session, page.stop],
        **QUIET,
        **HEAVY,
    )
    for event in (loading, measuring):
        for handler, inputs, outputs in [shown, *ctx.after_opening]:
            event.success(handler, inputs, outputs, **LIVE)
    for event in (loading, measuring, *others):
        event.failure(lambda: (outcome(UNCHANGED), gr.Button(visible=False)), **ends)
    page.stop.click(
        lambda: (outcome(stopped()), gr.Button(visible=False)),
        None,
        [page.status, page.stop],
        cancels=[loading, measuring, *others],
        **QUIET,
    )
    page.overview.cell(selected, None, ctx.selection, **CLICK)
    page.layers.cell(selected, None, ctx.selection, **CLICK)
    page.shelf.act(on_unload, ctx.session, [page.status, page.shelf, page.summary], **QUIET)
    ctx.opened["model"].select(on_shelf, None, page.shelf, **LIVE)
    page.to_outliers.click(lambda: gr.Tabs(selected="outliers"), None, ctx.tabs, **QUIET)
    ctx.on_model.append(shown)


def stopped() -> str:
    """What to expect of what was stopped."""
    return STOPPED.format(MEASUREMENT if keeps_unfinished() else "")


def on_show(session: str | None) -> tuple[Any, ...]:
    """Show the model of this visitor."""
    with as_sentences():
        work, names = workspace(session), bundled_names()
        return (
            showing.pictures(work),
            showing.summary(work),
            gr.HTML(fig=showing.overview(work)),
            showing.parts(work),
            gr.HTML(tree=showing.tree(work)),
            showing.exempt_table(work),
            gr.HTML(models=showing.shelf()),
            gr.Dropdown(choices=names, value=work.source) if work.source in names else gr.skip(),
            gr.skip() if work.measured_bits() else gr.HTML(chips=dumps([("model", work.title)])),
        )


def on_shelf() -> gr.HTML:
    """Show what is in memory now: other visitors load and unload too."""
    return gr.HTML(models=showing.shelf())


def on_unload(session: str | None, event: gr.EventData) -> tuple[Any, Any, Any]:
    """Let go of a model; whoever draws with it goes on."""
    with as_sentences():
        title = memory.unload(str((event._data or {}).get("key", "")))
        words = f"{title} was unloaded." if title else "That model was gone already."
        return outcome(words), gr.HTML(models=showing.shelf()), showing.summary(workspace(session))


def on_measure(
    session: str | None, samples: Any, activation_bits: Any, full: bool
) -> Iterator[tuple[Any, ...]]:
    """Calibrate and measure, with progress; nothing changes when it is stopped."""
    with as_sentences():
        bits = None if full else int(activation_bits)
        for event in stream(job(measure, workspace(session), bits, int(samples))):
            if isinstance(event, Step):
                bar = progress(event.done, event.total, event.message, event.seconds)
                yield bar, gr.skip(), gr.Button(visible=True)
            else:
                words = outcome(f"Measured in {event.seconds:.0f} s.")
                yield words, event.value.key, gr.Button(visible=False)
