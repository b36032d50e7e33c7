"""Bit budget: give out bits under an average, watch the allocation move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import MpqdmError
from pages import _budget_show as show
from pages import _budget_solve as solving
from pages._bridge import dumps, view
from pages._budget_keep import NO_PLAN, on_keep
from pages._budget_more import Measuring, More
from pages._budget_overrides import Overrides
from pages._context import CLICK, LIGHT, LIVE, QUIET, Context, as_sentences, selected
from pages._plan_key import plan_if_any, plan_of
from pages._sliders import may_be_empty
from pages._text import text

POLICIES = (
    ("optimal · best possible by the table", "optimal"),
    ("gain · trade bits while it pays", "gain"),
    ("kurtosis · the paper's swap by outliers", "kurtosis"),
    ("uniform · the same bits everywhere", "uniform"),
    ("head-tail · first and last channels", "head-tail"),
    ("random · a control", "random"),
)
WEIGHTINGS = (("effect on the prediction", "sensitivity"), ("relative", "relative"), ("as measured", "none"))
SCOPES = (("whole model", "model"), ("each layer", "layer"))
ALLOWED = [(str(bits), bits) for bits in range(1, 9)]


@dataclass(kw_only=True)
class Budget:
    """Components of the page."""

    weight_bits: gr.Slider
    activation_bits: gr.Slider
    activations_full: gr.Checkbox
    allowed: gr.CheckboxGroup
    policy: gr.Dropdown
    weighting: gr.Radio
    scope: gr.Radio
    more: More
    measuring: Measuring
    overrides: Overrides
    notice: gr.HTML
    summary: gr.HTML
    bits_map: gr.HTML
    frontier: gr.HTML
    by_layer: gr.HTML
    search: gr.HTML
    to_compare: gr.Button
    keep: gr.Button
    kept: gr.HTML
    write: gr.Button
    plan_text: gr.Code
    download: gr.DownloadButton

    @property
    def controls(self) -> list[Any]:
        """Inputs of the allocation before the locks, in the order of `read_choice`."""
        return [
            self.weight_bits,
            self.activation_bits,
            self.activations_full,
            self.allowed,
            self.policy,
            self.weighting,
            self.scope,
        ]

    def outputs(self, ctx: Context) -> list[Any]:
        """What a new allocation changes, in the order of `_budget_show.everything`."""
        return [
            self.notice,
            self.summary,
            self.bits_map,
            self.frontier,
            self.by_layer,
            self.search,
            ctx.plan,
            ctx.header,
            self.measuring.measure,
        ]


def build(ctx: Context) -> Budget:
    """Create the components of the tab."""
    gr.Markdown(text("budget"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            weight_bits = gr.Slider(
                1,
                8,
                value=4,
                step=0.05,
                label="Average weight bits",
                elem_id="weight-bits",
                info="What every weight may cost on average. Drag it and watch the map.",
            )
            activation_bits = gr.Slider(
                2,
                8,
                value=8,
                step=1,
                precision=0,
                label="Activation bits",
                elem_id="activation-bits",
                info="Bits of the numbers that flow between layers.",
            )
            activations_full = gr.Checkbox(
                False, label="Leave activations in full precision", elem_id="activations-full"
            )
            policy = gr.Dropdown(
                list(POLICIES),
                value="optimal",
                label="Policy",
                elem_id="policy",
                info="Who decides which channel gets more.",
            )
            weighting = gr.Radio(
                list(WEIGHTINGS), value="sensitivity", label="An error counts by its", elem_id="weighting"
            )
            scope = gr.Radio(list(SCOPES), value="model", label="The average holds for", elem_id="scope")
            allowed = gr.CheckboxGroup(
                ALLOWED, value=[bits for _, bits in ALLOWED], label="Allowed bit-widths", elem_id="allowed"
            )
            more = More.build()
        with gr.Column(scale=8, min_width=320):
            notice = gr.HTML(elem_id="budget-notice")
            measuring = Measuring.build()
            summary = gr.HTML(elem_id="budget-summary")
            bits_map = view(
                "plot",
                label="Bits of every channel: a row for each layer. Arrow keys move the selection.",
                elem_id="bits-map",
                fig="",
            )
            gr.Markdown(text("budget_map"), elem_classes=["mpq-note"])
            with gr.Row():
                to_compare = gr.Button("Compare the pictures →", variant="primary", elem_id="to-compare")
                keep = gr.Button("Keep this plan as a run", elem_id="keep-plan")
            kept = gr.HTML(elem_id="kept-plan")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            gr.Markdown("What each budget costs · click a point to go there", elem_classes=["mpq-title"])
            frontier = view("plot", label="Predicted error against average bits", elem_id="frontier", fig="")
        with gr.Column(min_width=300):
            gr.Markdown("Where the predicted error sits · click a layer", elem_classes=["mpq-title"])
            by_layer = view("plot", label="Predicted error of every layer", elem_id="by-layer", fig="")
        with gr.Column(min_width=300):
            gr.Markdown("The paper's search in the selected layer", elem_classes=["mpq-title"])
            search = view(
                "plot",
                label="Error of the layer's output for each number of groups",
                elem_id="search-curve",
                fig="",
            )
    overrides = Overrides.build()
    with gr.Accordion("Take the plan with you", open=False, elem_id="take-plan"):
        write = gr.Button("Write the plan as JSON", elem_id="write-plan")
        plan_text = gr.Code(
            language="json", label="One digit a channel", max_lines=8, interactive=False, elem_id="plan-text"
        )
        download = gr.DownloadButton("Download plan.json", interactive=False)
    gr.Markdown(text("budget_help"), elem_classes=["mpq-note"])
    ctx.linked |= {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "activations_full": activations_full,
        "allowed_bits": allowed,
        "policy": policy,
        "weighting": weighting,
        "scope": scope,
        "extra_groups": more.extra_groups,
        "grid": more.grid,
        "range_exponent": more.range_exponent,
        "prescale": more.prescale,
        "kept_8": more.eight,
        "kept_full": more.full,
    }
    return Budget(
        weight_bits=may_be_empty(weight_bits),
        activation_bits=may_be_empty(activation_bits),
        activations_full=activations_full,
        allowed=allowed,
        policy=policy,
        weighting=weighting,
        scope=scope,
        more=more,
        measuring=measuring,
        overrides=overrides,
        notice=notice,
        summary=summary,
        bits_map=bits_map,
        frontier=frontier,
        by_layer=by_layer,
        search=search,
        to_compare=to_compare,
        keep=keep,
        kept=kept,
        write=write,
        plan_text=plan_text,
        download=download,
    )


def wire(ctx: Context, page: Budget) -> None:
    """Connect the events of the tab."""
    controls = [*page.controls, ctx.locks, *page.more.controls]
    everything = [ctx.session, ctx.selection, *controls]
    outputs = page.outputs(ctx)
    sliders = [
        page.weight_bits.input,
        page.activation_bits.input,
        page.activations_full.input,
        page.allowed.input,
    ]
    gr.on(
        [*sliders, page.policy.input, page.weighting.input, page.scope.input],
        on_budget,
        everything,
        outputs,
        **LIVE,
    )
    page.more.wire(ctx, page.policy, on_budget, everything, outputs)
    page.measuring.wire(ctx, controls, on_budget, everything, outputs)
    page.overrides.wire(ctx, on_budget, everything, outputs)
    page.bits_map.cell(selected, None, ctx.selection, **CLICK)
    page.by_layer.point(on_layer, ctx.plan, [ctx.selection, ctx.header], **CLICK)
    page.frontier.point(on_frontier, None, page.weight_bits, **CLICK).then(
        on_budget, everything, outputs, **LIVE
    )
    page.write.click(on_write, ctx.plan, [page.plan_text, page.download], api_visibility="private")
    page.keep.click(on_keep, ctx.plan, page.kept, **LIGHT, **QUIET)
    page.to_compare.click(lambda: gr.Tabs(selected="compare"), None, ctx.tabs, **QUIET)
    ctx.on_model.append((on_budget, everything, outputs))
    ctx.on_select.append((on_search, [ctx.plan, ctx.selection], [page.search]))


def on_budget(
    session: str | None, selection: tuple[str | None, int | None], *controls: Any
) -> tuple[Any, ...]:
    """Allocate and show; an impossible budget shows why and keeps the rest."""
    try:
        solved = solving.solve(session, solving.read_choice(*controls))
    except MpqdmError as err:
        return show.refused(err)
    return show.everything(solved, selection)


def on_search(key: Any, selection: tuple[str | None, int | None]) -> Any:
    """Show the search curve of another layer."""
    solved = plan_if_any(key)
    return gr.skip() if solved is None else show.search(solved, selection)


def on_frontier(event: gr.EventData) -> float | Any:
    """Set the budget to the clicked point."""
    bits = (event._data or {}).get("x")
    return gr.skip() if bits is None else min(8.0, max(1.0, round(float(bits) * 20) / 20))


def on_write(key: Any) -> tuple[str, Any]:
    """Write the plan on the page."""
    with as_sentences():
        solved = plan_of(key, NO_PLAN)
        return show.plan_text(solved), gr.DownloadButton(value=show.plan_file(solved), interactive=True)


def on_layer(key: Any, event: gr.EventData) -> tuple[Any, Any]:
    """Select the layer of a clicked point; the maps follow."""
    solved = plan_if_any(key)
    if solved is None:
        return gr.skip(), gr.skip()
    names = solved.table.layer_names
    row = int((event._data or {}).get("x") or 0)
    layer = names[min(max(row, 0), len(names) - 1)]
    return (layer, None), gr.update(selected=dumps({"layer": layer, "channel": None}))
