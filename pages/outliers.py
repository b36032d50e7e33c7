"""Outliers: which channels make the model hard to quantize, and what rounding does to one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import MpqdmError
from pages import _outlier_view as seeing
from pages._bridge import dumps, view
from pages._budget_tables import UnknownModelError
from pages._channel import channel_json
from pages._context import CLICK, LIVE, QUIET, Context, selected
from pages._figures_outliers import input_range_figure
from pages._html import warning
from pages._plan_key import plan_if_any
from pages._session import workspace
from pages._size import DEFAULT_STEPS
from pages._text import text

SIDES = (
    ("weights", "weights"),
    ("weights after pre-scaling", "prescaled"),
    ("inputs of the layers", "activations"),
)
MAP_LABEL = "A statistic of every channel: a row for each layer. Arrow keys move the selection."
START_BITS = 4


@dataclass(kw_only=True)
class Outliers:
    """Components of the page."""

    side: gr.Radio
    statistic: gr.Dropdown
    input_statistic: gr.Dropdown
    step: gr.Slider
    logarithmic: gr.Checkbox
    sort: gr.Checkbox
    threshold: gr.Number
    sentence: gr.HTML
    heat: gr.HTML
    channel: gr.HTML
    ranges: gr.HTML
    offenders: gr.Dataframe
    to_budget: gr.Button

    @property
    def controls(self) -> list[Any]:
        """Inputs of the map, in the order of `on_look`."""
        return [
            self.side,
            self.statistic,
            self.input_statistic,
            self.step,
            self.logarithmic,
            self.sort,
            self.threshold,
        ]


def build(ctx: Context) -> Outliers:
    """Create the components of the tab."""
    gr.Markdown(text("outliers"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            side = gr.Radio(list(SIDES), value="weights", label="Look at", elem_id="side")
            statistic = gr.Dropdown(
                [(name, key) for key, name in seeing.STATISTICS.items()],
                value="kurtosis",
                label="Statistic of the weights",
                elem_id="statistic",
                info=text("statistics"),
            )
            input_statistic = gr.Dropdown(
                [(name, key) for key, name in seeing.INPUT_STATISTICS.items()],
                value="channel_ratio",
                label="Statistic of the inputs",
                visible=False,
                elem_id="input-statistic",
            )
            step = gr.Slider(
                0,
                19,
                value=0,
                step=1,
                precision=0,
                label="Denoising step",
                visible=False,
                elem_id="step",
                info="0 is pure noise; the last step is the finished picture.",
            )
            logarithmic = gr.Checkbox(True, label="Logarithmic colours")
            sort = gr.Checkbox(False, label="Sort the channels of each layer")
            threshold = gr.Number(None, label="List only channels above", elem_id="threshold")
        with gr.Column(scale=8, min_width=320):
            sentence = gr.HTML(elem_id="outlier-sentence", elem_classes=["mpq-lead"])
            heat = view("plot", label=MAP_LABEL, elem_id="outlier-map", fig="")
            to_budget = gr.Button("Give these channels bits →", variant="primary", elem_id="to-budget")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            gr.Markdown("One channel, rounded", elem_classes=["mpq-title"])
            channel = view("channel", label="One channel", elem_id="channel", channel="")
        with gr.Column(scale=5, min_width=320):
            gr.Markdown("The worst channels · click a row", elem_classes=["mpq-title"])
            offenders = gr.Dataframe(
                headers=["Layer", "Channel", "Value"],
                datatype=["str", "number", "number"],
                column_widths=["50%", "26%", "24%"],  # all of them fit on a phone
                wrap=True,
                interactive=False,
                max_height=300,
                elem_id="offenders",
                show_label=False,
                buttons=["copy"],
            )
            gr.Markdown("Inputs of the selected layer by timestep", elem_classes=["mpq-title"])
            ranges = view(
                "plot", label="Range of the layer's inputs by timestep", elem_id="input-ranges", fig=""
            )
    ctx.linked |= {"side": side, "statistic": statistic, "step": step}
    return Outliers(
        side=side,
        statistic=statistic,
        input_statistic=input_statistic,
        step=step,
        logarithmic=logarithmic,
        sort=sort,
        threshold=threshold,
        sentence=sentence,
        heat=heat,
        channel=channel,
        ranges=ranges,
        offenders=offenders,
        to_budget=to_budget,
    )


def wire(ctx: Context, page: Outliers) -> None:
    """Connect the events of the tab."""
    everything = [ctx.session, *page.controls]
    outputs = [page.sentence, page.heat, page.offenders]
    events = [control.input for control in page.controls if control is not page.step]
    gr.on([*events, page.step.change], on_look, everything, outputs, **LIVE)
    page.side.change(
        on_side, [ctx.session, page.side], [page.statistic, page.input_statistic, page.step], **LIVE
    )
    page.heat.cell(on_cell, None, ctx.selection, **CLICK)
    page.offenders.select(on_offender, None, [ctx.selection, ctx.header], **CLICK)
    ctx.header.step(on_scrub, ctx.session, page.step, **CLICK)  # from the scrubber of Compare
    page.step.change(on_ranges, [ctx.session, ctx.selection, page.step], page.ranges, **LIVE)
    page.to_budget.click(lambda: gr.Tabs(selected="budget"), None, ctx.tabs, **QUIET)
    ctx.on_model.append((on_look, everything, outputs))
    ctx.on_select.append((on_channel, [ctx.session, ctx.selection, ctx.plan, page.side], [page.channel]))
    ctx.on_select.append((on_ranges, [ctx.session, ctx.selection, page.step], [page.ranges]))


def on_look(
    session: str | None, side: str, statistic: str, input_statistic: str, step: Any, *options: Any
) -> tuple[Any, ...]:
    """Show one statistic of every channel."""
    logarithmic, sort, threshold = options
    try:
        seen = seeing.look(session, side, statistic, input_statistic, step)
        rows = seeing.offenders(seen, threshold)
    except UnknownModelError as err:  # what is there belongs to another model
        return warning(str(err)), gr.update(fig=""), []
    except MpqdmError as err:
        return warning(str(err)), gr.skip(), gr.skip()
    return (
        f"<p>{seeing.sentence(seen)}</p>",
        gr.update(fig=dumps(seeing.figure(seen, logarithmic, sort))),
        rows,
    )


def on_side(session: str | None, side: str) -> tuple[Any, ...]:
    """Show the controls that belong to weights or to inputs."""
    is_input = side == "activations"
    last = last_step(session) if is_input else DEFAULT_STEPS - 1
    return (
        gr.Dropdown(visible=not is_input),
        gr.Dropdown(visible=is_input),
        gr.Slider(visible=is_input, maximum=last),
    )


def last_step(session: str | None) -> int:
    """Number of the last recorded denoising step, counted from 0."""
    stats = workspace(session).outlier_stats()
    return (
        max(len(stats.timesteps) - 1, 1) if stats is not None and len(stats.timesteps) else DEFAULT_STEPS - 1
    )


def on_cell(event: gr.EventData) -> tuple[str, int | None]:
    """Keep the clicked cell as the selection of the whole page."""
    return selected(event)


def on_offender(event: gr.SelectData) -> tuple[Any, Any]:
    """Select the channel of a row of the list; the maps follow."""
    layer, channel = str(event.row_value[0]), int(event.row_value[1])
    return (layer, channel), gr.update(selected=dumps({"layer": layer, "channel": channel}))


def on_channel(session: str | None, selection: tuple[str | None, int | None], plan: Any, side: str) -> Any:
    """Open the selected channel under the magnifying glass, at the bits it has now."""
    layer, channel = selection
    if not layer or channel is None:
        return gr.skip()
    try:
        return gr.update(
            channel=channel_json(
                workspace(session), layer, channel, _bits(plan, layer, channel), prescaled=side != "weights"
            )
        )
    except MpqdmError as err:
        gr.Warning(str(err))
        return gr.skip()


def on_scrub(session: str | None, event: gr.EventData) -> Any:
    """Follow the denoising step that was chosen elsewhere, within the steps that were recorded."""
    at = (event._data or {}).get("at")
    if isinstance(at, bool) or not isinstance(at, int) or at < 0:
        return gr.skip()
    last = last_step(session)
    return gr.Slider(value=min(at, last), maximum=last)


def on_ranges(session: str | None, selection: tuple[str | None, int | None], step: Any) -> Any:
    """Show the inputs of the selected layer by timestep."""
    stats = workspace(session).outlier_stats()
    if stats is None or not len(stats.timesteps):
        return gr.skip()
    layer = selection[0] if selection[0] in stats.layer_names else None
    row = stats.layer_names.index(layer) if layer else 0
    return gr.update(
        fig=dumps(
            input_range_figure(layer, stats.timesteps, stats.low[:, row], stats.high[:, row], int(step or 0))
        )
    )


def _bits(key: Any, layer: str, channel: int) -> int:
    solved = plan_if_any(key)
    if solved is None or layer not in solved.allocation.plan.layer_names:
        return START_BITS
    return int(solved.allocation.plan.layer_bits(layer)[channel])
