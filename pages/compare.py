"""Compare: full precision against the plan and against uniform bits, from the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import LoadError
from pages import _compare_view as showing
from pages._bridge import view
from pages._compare_adapters import AdapterPicker, chosen_of
from pages._compare_asked import OWN, AskedFields, offered
from pages._compare_keep import on_keep
from pages._compare_sets_panel import SetsPanel
from pages._compare_work import MAX_PICTURES, compare_plans, read_order
from pages._context import HEAVY, QUIET, Context, as_sentences
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._plan_key import plan_of
from pages._precomputed import DEFAULT_MODEL
from pages._session import workspace
from pages._sliders import may_be_empty
from pages._text import text
from pages._work import job

HINT = outcome("Draw the pictures to see at which denoising step they part from full precision.")
CLASSES, OWN_PROMPTS = "Classes", "The model's own prompts"
STOPPED = "Stopped. The pictures below are those from before."


@dataclass(kw_only=True)
class Compare:
    """Components of the page."""

    classes: gr.Dropdown
    seed: gr.Number
    count: gr.Slider
    asked: AskedFields
    adapters: AdapterPicker
    draw: gr.Button
    stop: gr.Button
    keep: gr.Button
    status: gr.HTML
    pair: gr.HTML
    metrics: gr.HTML
    steps: gr.HTML
    steps_hint: gr.HTML
    sets: SetsPanel


def build(ctx: Context) -> Compare:
    """Create the components of the tab."""
    gr.Markdown(text("compare"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            classes = gr.Dropdown(
                class_choices(DEFAULT_MODEL),  # known at once, so that a link may name some
                value=[],
                multiselect=True,
                label=CLASSES,
                elem_id="classes",
                info="None chosen: all take turns.",
            )
            seed = gr.Number(
                0,
                label="First seed",
                precision=0,
                minimum=0,
                elem_id="seed",
                info="Each picture has its own noise, fixed by its seed.",
            )
            count = gr.Slider(
                1, MAX_PICTURES, value=8, step=1, precision=0, label="Pictures", elem_id="count"
            )
            asked = AskedFields.build(samplers_of(DEFAULT_MODEL))
            adapters = AdapterPicker.build()
            draw = gr.Button("Draw the pictures", variant="primary", elem_id="draw")
            stop = gr.Button("Stop", variant="stop", elem_id="stop-draw", visible=False)
            keep = gr.Button("Keep as runs", size="sm", elem_id="keep-compared")
            status = gr.HTML(elem_id="compare-status")
            gr.Markdown(text("compare_note"), elem_classes=["mpq-note"])
        with gr.Column(scale=8, min_width=320):
            pair = view("compare", label="Two pictures from the same noise", elem_id="pair", pair="")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            gr.Markdown("How far from full precision", elem_classes=["mpq-title"])
            metrics = gr.HTML(elem_id="metrics")
        with gr.Column(scale=5, min_width=320):
            gr.Markdown("Where the error comes in", elem_classes=["mpq-title"])
            steps_hint = gr.HTML(HINT, elem_id="steps-hint")
            steps = view("plot", label="Signal to error of the latent at every step", elem_id="steps", fig="")
    sets = SetsPanel.build()
    ctx.linked |= {"seed": seed, "classes": classes, "sampler": asked.sampler, "prompts": asked.prompts}
    ctx.picker = adapters.chosen
    return Compare(
        classes=classes,
        seed=seed,
        count=may_be_empty(count),
        asked=asked,
        adapters=adapters,
        draw=draw,
        stop=stop,
        keep=keep,
        status=status,
        pair=pair,
        metrics=metrics,
        steps=steps,
        steps_hint=steps_hint,
        sets=sets,
    )


def wire(ctx: Context, page: Compare) -> None:
    """Connect the events of the tab."""
    shown = [page.status, page.stop, page.pair, page.metrics, page.steps, page.steps_hint]
    widgets = [page.classes, page.seed, page.count, page.asked.sampler, page.asked.prompts]
    order = [ctx.session, ctx.plan, *widgets, page.adapters.chosen]
    page.keep.click(on_keep, order, page.status, **QUIET)
    drawing = page.draw.click(
        on_draw,
        order,
        shown,
        **QUIET,
        **HEAVY,
    )
    ended = [page.status, page.stop]
    drawing.failure(on_ended, None, ended, **QUIET)  # a last word of progress may come after Stop was heard
    page.stop.click(None, cancels=[drawing])  # the failure says so, once Draw can be pressed again
    page.sets.wire(ctx)
    page.adapters.wire(ctx, page.status)
    asked = [page.classes, page.asked.sampler, page.asked.prompts]
    others = [*asked, page.pair, page.metrics, page.steps, page.steps_hint]
    ctx.on_model.append((on_model, [ctx.session, *asked], others))


def on_model(
    session: str | None, chosen: Sequence[Any] | None, sampler: Any = OWN, prompts: Any = ""
) -> tuple[Any, ...]:
    """Offer the classes of the model, and show the comparison that ships with it."""
    with as_sentences():
        work, choices = workspace(session), class_choices(session)
        kept = [index for index in chosen or () if index in range(len(choices))]
        drop = gr.Dropdown(
            choices=choices,
            value=kept,
            multiselect=True,
            interactive=bool(choices),
            label=OWN_PROMPTS if work.prompted else CLASSES,
        )
        shipped = gr.HTML(pair=showing.shipped_pair(work.source)), showing.shipped_metrics(work.source)
        return drop, *offered(work, sampler, prompts), *shipped, gr.HTML(fig=""), HINT


def class_choices(session: str | None) -> list[tuple[str, int]]:
    """Classes of a model as the list shows them; none when it is not open and nothing ships with it."""
    try:
        return [(name, index) for index, name in enumerate(workspace(session).class_names)]
    except LoadError:
        return []


def samplers_of(session: str | None) -> tuple[str, ...]:
    """Samplers a model can be drawn by; none when it is not open and nothing ships with it."""
    try:
        return workspace(session).schedulers
    except LoadError:
        return ()


def on_draw(
    session: str | None,
    plan: Any,
    classes: Sequence[Any] | None,
    seed: Any,
    count: Any,
    sampler: Any = OWN,
    prompts: Any = "",
    adapters: Sequence[str] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Draw and compare, with progress."""
    with as_sentences():
        solved = plan_of(plan)
        order = read_order(workspace(session), classes, seed, count, sampler, prompts)
        for event in stream(job(compare_plans, solved, order, chosen_of(adapters))):
            if isinstance(event, Step):
                words = progress(event.done, event.total, event.message, event.seconds)
                yield words, gr.Button(visible=True), *(gr.skip() for _ in range(4))
            else:
                yield finished(event)


def on_ended() -> tuple[str, gr.Button]:
    """Say that nothing new came of it; what went wrong was said by the failure itself."""
    return outcome(STOPPED), gr.Button(visible=False)


def finished(event: Any) -> tuple[Any, ...]:
    """Everything the page shows of a finished comparison."""
    found = event.value
    words = outcome(
        f"Drawn and compared in {event.seconds:.1f} s, on this server's CPU, simulated quantization."
    )
    return (
        words,
        gr.Button(visible=False),
        gr.HTML(pair=showing.pair(found)),
        showing.metrics(found),
        gr.HTML(fig=showing.by_step(found)),
        "",
    )
