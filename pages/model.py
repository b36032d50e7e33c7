"""Model: what is loaded, what it consists of, and loading another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pages import _model_view as showing
from pages._bridge import dumps, view
from pages._context import HEAVY, LIVE, QUIET, Context, as_sentences, selected
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._precomputed import DEFAULT_MODEL
from pages._session import workspace
from pages._text import text
from pages._work import bundled_names, folders_allowed, job, load, measure

STOPPED = "Stopped. What was there before is unchanged."


@dataclass(kw_only=True)
class Model:
    """Components of the page."""

    source: gr.Dropdown
    folder: gr.Textbox
    load: gr.Button
    measure: gr.Button
    samples: gr.Slider
    stop: gr.Button
    status: gr.HTML
    pictures: gr.HTML
    summary: gr.HTML
    overview: gr.HTML
    layers: gr.Dataframe
    exempt: gr.HTML
    to_outliers: gr.Button

    @property
    def shown(self) -> list[Any]:
        """What another model changes, in the order of `on_show`."""
        return [self.pictures, self.summary, self.overview, self.layers, self.exempt]


def build(ctx: Context) -> Model:
    """Create the components of the tab."""
    gr.Markdown(text("model"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            names = bundled_names()
            source = gr.Dropdown(
                names,
                value=DEFAULT_MODEL if DEFAULT_MODEL in names else names[0],
                label="Bundled model",
                elem_id="source",
                info="Ships with the explorer, with everything measured.",
            )
            folder = gr.Textbox(
                label="or a diffusers folder on this machine",
                placeholder="/path/to/a/diffusers/folder",
                elem_id="folder",
                visible=folders_allowed(),
                info="UNet2DModel pipelines, safetensors only.",
            )
            load_button = gr.Button("Load the model", elem_id="load")
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
                )
                measure_button = gr.Button("Measure", elem_id="measure")
            stop = gr.Button("Stop", variant="stop", elem_id="stop-model", visible=False)
            status = gr.HTML(elem_id="model-status")
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
    gr.Markdown("Layers · click a row to select it everywhere", elem_classes=["mpq-title"])
    layers = gr.Dataframe(
        headers=showing.HEAD,
        datatype=["str", "str", "str", "number", "number", "number", "str"],
        interactive=False,
        show_search="filter",
        max_height=340,
        pinned_columns=1,
        elem_id="layers",
        show_label=False,
        buttons=["copy", "fullscreen"],
    )
    with gr.Accordion("Layers outside the budget", open=False):
        exempt = gr.HTML(elem_id="exempt")
    return Model(
        source=source,
        folder=folder,
        load=load_button,
        measure=measure_button,
        samples=samples,
        stop=stop,
        status=status,
        pictures=pictures,
        summary=summary,
        overview=overview,
        layers=layers,
        exempt=exempt,
        to_outliers=to_outliers,
    )


def wire(ctx: Context, page: Model) -> None:
    """Connect the events of the tab."""
    ends = {"inputs": None, "outputs": page.stop, **QUIET}
    started = [page.status, ctx.session, page.stop]
    loading = page.load.click(
        on_load,
        [page.source, page.folder],
        started,
        api_visibility="private",
        show_progress="hidden",
        **HEAVY,
    )
    bits = [ctx.linked[name] for name in ("activation_bits", "activations_full")]
    measuring = page.measure.click(
        on_measure,
        [ctx.session, page.samples, *bits],
        started,
        api_visibility="private",
        show_progress="hidden",
        **HEAVY,
    )
    for event in (loading, measuring):
        event.failure(lambda: gr.Button(visible=False), **ends)
        for handler, inputs, outputs in [(on_show, [ctx.session], page.shown), *ctx.on_model]:
            event.success(handler, inputs, outputs, **LIVE)
    page.stop.click(
        lambda: (outcome(STOPPED), gr.Button(visible=False)),
        None,
        [page.status, page.stop],
        cancels=[loading, measuring],
        **QUIET,
    )
    page.overview.cell(selected, None, ctx.selection, **LIVE)
    page.layers.select(on_layer, None, [ctx.selection, ctx.header], **LIVE)
    page.to_outliers.click(lambda: gr.Tabs(selected="outliers"), None, ctx.tabs, **QUIET)
    ctx.on_model.append((on_show, [ctx.session], page.shown))


def on_show(session: str | None) -> tuple[Any, ...]:
    """Show the model of this visitor."""
    with as_sentences():
        work = workspace(session)
        return (
            showing.pictures(work),
            showing.summary(work),
            gr.HTML(fig=showing.overview(work)),
            showing.layer_rows(work),
            showing.exempt_table(work),
        )


def on_load(source: str, folder: str) -> Iterator[tuple[Any, ...]]:
    """Load a bundled model or a folder, with progress."""
    with as_sentences():
        for event in stream(job(load, (folder or "").strip() or source)):
            if isinstance(event, Step):
                yield bar(event), gr.skip(), gr.Button(visible=True)
            else:
                words = f"{event.value.title} is loaded ({event.seconds:.1f} s)."
                yield outcome(words), event.value.key, gr.Button(visible=False)


def on_measure(
    session: str | None, samples: Any, activation_bits: Any, full: bool
) -> Iterator[tuple[Any, ...]]:
    """Calibrate and measure, with progress; nothing changes when it is stopped."""
    with as_sentences():
        bits = None if full else int(activation_bits)
        for event in stream(job(measure, workspace(session), bits, int(samples))):
            if isinstance(event, Step):
                yield bar(event), gr.skip(), gr.Button(visible=True)
            else:
                yield (
                    outcome(f"Measured in {event.seconds:.0f} s."),
                    event.value.key,
                    gr.Button(visible=False),
                )


def on_layer(event: gr.SelectData) -> tuple[Any, Any]:
    """Select the layer of a row; the maps follow."""
    layer = str(event.row_value[0])
    return (layer, None), gr.HTML(selected=dumps({"layer": layer, "channel": None}))


def bar(step: Step) -> str:
    """Progress of a job."""
    return progress(step.done, step.total, step.message, step.seconds)
