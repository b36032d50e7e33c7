"""Distill: fine-tune the quantized model towards full precision, watch it, and keep what it learned."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import MpqdmError, SettingsError
from pages import _distill_show as show
from pages import _distill_view as showing
from pages._bridge import view
from pages._context import HEAVY, LIGHT, LIVE, QUIET, Context, as_sentences
from pages._distill_controls import Controls
from pages._distill_keep import on_keep
from pages._distill_settings import Order, read_order
from pages._distill_work import RUNS, estimate, measure_speed, train
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._plan_key import plan_if_any, plan_of
from pages._text import text
from pages._work import job


@dataclass(kw_only=True)
class Distill:
    """Components of the page."""

    controls: Controls
    intention: gr.HTML
    duration: gr.HTML
    measure: gr.Button
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    step: gr.Button  # goes on for one step, and stops again
    keep: gr.Button
    kept: gr.HTML
    seen: gr.State  # what this visitor's page shows already
    shown: list[Any]  # what a run changes, in the order of `_distill_show.Shown`


def build(ctx: Context) -> Distill:
    """Create the components of the tab."""
    gr.Markdown(text("distill"), elem_classes=["mpq-lead"])
    seen = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            controls = Controls.build()
            duration = gr.HTML(elem_id="distill-duration")
            measure = gr.Button("Time two steps here", size="sm", elem_id="distill-measure")
            start = gr.Button("Start training", variant="primary", elem_id="distill-start")
            with gr.Row():
                resume = gr.Button("Resume", elem_id="distill-resume", visible=False, min_width=120)
                step = gr.Button("One step", elem_id="distill-step", visible=False, min_width=120)
            stop = gr.Button("Stop", variant="stop", elem_id="distill-stop", visible=False)
        with gr.Column(scale=8, min_width=320):
            intention = gr.HTML(elem_id="distill-intention")
            status = gr.HTML(elem_id="distill-status")
            result = gr.HTML(elem_id="distill-result")
            download = gr.DownloadButton(
                "Download the adapter (safetensors)", elem_id="distill-download", visible=False
            )
            keep = gr.Button("Keep as a run", size="sm", elem_id="distill-keep", visible=False)
            kept = gr.HTML(elem_id="distill-kept")
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    gr.Markdown("The same four pictures while it learns", elem_classes=["mpq-title"])
                    previews = view(
                        "training", label="Previews", elem_id="distill-previews", height=0, previews=""
                    )
                with gr.Column(scale=5, min_width=300):
                    gr.Markdown("The loss", elem_classes=["mpq-title"])
                    losses = view("plot", label="Loss of every step", elem_id="distill-losses-curve", fig="")
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=300):
                    gr.Markdown("The doctor", elem_classes=["mpq-title"])
                    doctor = gr.HTML(showing.NO_DIAGNOSIS, elem_id="distill-doctor")
                with gr.Column(scale=5, min_width=300):
                    log = gr.Textbox(
                        label="Log",
                        lines=9,
                        max_lines=9,
                        interactive=False,
                        autoscroll=True,
                        elem_id="distill-log",
                    )
    gr.Markdown(text("distill_help"), elem_classes=["mpq-note"])
    shown = [
        seen,
        ctx.ticks,
        status,
        start,
        stop,
        resume,
        losses,
        previews,
        doctor,
        result,
        log,
        download,
        keep,
        step,
    ]
    return Distill(
        controls=controls,
        intention=intention,
        duration=duration,
        measure=measure,
        start=start,
        stop=stop,
        resume=resume,
        step=step,
        keep=keep,
        kept=kept,
        seen=seen,
        shown=shown,
    )


def wire(ctx: Context, page: Distill) -> None:
    """Connect the events of the tab."""
    page.controls.wire()
    inputs, said = [ctx.plan, *page.controls.inputs], [page.intention, page.duration]
    changes = [widget.change for widget in page.controls.inputs]
    gr.on([ctx.opened["distill"].select, *changes], on_plan, inputs, said, **LIVE)
    ctx.on_plan.append((on_other_plan, inputs, said))
    gr.context.Context.root_block.load(on_open, ctx.run, page.shown, **LIVE)
    ctx.opened["distill"].select(on_open, ctx.run, page.shown, **LIVE)
    ctx.ticks.tick(on_tick, [ctx.run, page.seen], page.shown, **LIGHT, **QUIET)
    page.start.click(on_start, [ctx.run, *inputs], [ctx.run, *page.shown], **LIGHT, **QUIET)
    page.stop.click(on_stop, [ctx.run, page.seen], page.shown, **LIGHT, **QUIET)
    page.resume.click(on_resume, [ctx.run, page.seen], page.shown, **LIGHT, **QUIET)
    page.step.click(on_step, [ctx.run, page.seen], page.shown, **LIGHT, **QUIET)
    page.keep.click(on_keep, ctx.run, page.kept, **LIGHT, **QUIET)
    measuring = page.measure.click(on_measure, inputs, page.duration, **QUIET, **HEAVY)
    measuring.success(on_plan, inputs, said, **LIVE)
    measuring.failure(on_plan, inputs, said, **LIVE)


def on_plan(plan: Any, *widgets: Any) -> tuple[str, str]:
    """Say what a run would do and how long it would take; what is wrong takes the place of the time."""
    solved = plan_if_any(plan)
    try:
        order = _order(plan, *widgets)
    except MpqdmError as err:
        return showing.intention(solved), "" if solved is None else showing.refused(str(err))
    return showing.intention(solved), showing.duration(order, str(widgets[0]), estimate(order))


def on_other_plan(plan: Any, *widgets: Any) -> tuple[Any, Any]:
    """The same for another model's first plan, unless that would make the first page wait for torch."""
    return on_plan(plan, *widgets) if "torch" in sys.modules else (gr.skip(), gr.skip())


def on_open(name: Any) -> tuple[Any, ...]:
    """Show this browser's run, from the start."""
    return show.everything(_run(name), None)


def on_tick(name: Any, seen: Any) -> tuple[Any, ...]:
    """Show what is new."""
    return show.everything(_run(name), seen)


def on_start(name: Any, plan: Any, *widgets: Any) -> tuple[Any, ...]:
    """Put a new run in line."""
    with as_sentences():
        known = _run(name)
        if known is not None and known.alive:
            raise SettingsError("your run is on its way already: stop it first, or wait for it")
        order = _order(plan, *widgets)
        run = RUNS.submit(order.title, lambda run: train(run, order))
        return run.id, *show.everything(run, None)


def on_stop(name: Any, seen: Any) -> tuple[Any, ...]:
    """Ask the run to stop; the timer shows when it has."""
    run = _run(name)
    if run is not None:
        RUNS.stop(run)
    return show.everything(run, seen)


def on_resume(name: Any, seen: Any, steps: int | None = None) -> tuple[Any, ...]:
    """Put the run in line again."""
    with as_sentences():
        run = _run(name)
        if run is None:
            raise SettingsError("this run is not kept any more: start a new one")
        RUNS.resume(run, steps)
        return show.everything(run, seen)


def on_step(name: Any, seen: Any) -> tuple[Any, ...]:
    """Let the run take one more step."""
    return on_resume(name, seen, steps=1)


def on_measure(plan: Any, *widgets: Any) -> Iterator[str]:
    """Time two steps of the chosen settings."""
    with as_sentences():
        for event in stream(job(measure_speed, _order(plan, *widgets))):
            if isinstance(event, Step):
                yield progress(event.done, event.total, event.message, event.seconds)
            else:
                yield outcome("Timed.")


def _order(plan: Any, *widgets: Any) -> Order:
    return read_order(plan_of(plan), *widgets)


def _run(name: Any) -> Any:
    """The run this browser remembers; whatever else stands there is nobody's."""
    return RUNS.get(name) if isinstance(name, str) else None
