"""The frame around the tabs: header, shared state, the link, and what happens when a page opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from mpqdm_core import permalink
from mpqdm_core.errors import MpqdmError
from mpqdm_core.permalink import PageState
from pages import _exempt, _guide, ablation, budget, compare, distill, export, model, outliers
from pages._bridge import dumps, serve_scripts, view
from pages._context import FOLLOWED, LIVE, QUIET, Context
from pages._precomputed import DEFAULT_MODEL, Precomputed
from pages._session import workspace

TABS = (
    ("Model", "model", model),
    ("Outliers", "outliers", outliers),
    ("Bit budget", "budget", budget),
    ("Distill", "distill", distill),
    ("Compare", "compare", compare),
    ("Ablation", "ablation", ablation),
    ("Export", "export", export),
)
WIDGETS = (
    "weight_bits",
    "activation_bits",
    "activations_full",
    "allowed_bits",
    "policy",
    "weighting",
    "scope",
    "extra_groups",
    "grid",
    "range_exponent",
    "prescale",
    "kept_8",
    "kept_full",
    "side",
    "statistic",
    "step",
    "seed",
    "classes",
    "sampler",
    "prompts",
)


def build() -> Context:
    """Create header and tabs inside the open Blocks and connect everything."""
    serve_scripts()
    header = view(
        "header", label="MPQ-DM Explorer", elem_id="header", height=0, chips="", state="", selected=""
    )
    gr.Navbar(visible=False)  # the header has the link to the other page
    guide = _guide.build()
    # States come before the tabs: as children of gr.Tabs they would be counted as tabs.
    tab, session, selection = gr.State("model"), gr.State(DEFAULT_MODEL), gr.State((None, None))
    locks, plan, made = gr.State({}), gr.State(None), []
    run = gr.BrowserState("", storage_key="mpqdm-run", secret="mpqdm-explorer")  # survives a reload
    ticks = gr.Timer(1.0, active=False)
    with gr.Tabs(selected="model", overflow_behavior="wrap", elem_id="tabs") as tabs:
        states = {"session": session, "selection": selection, "locks": locks, "plan": plan}
        ctx = Context(header=header, tabs=tabs, run=run, ticks=ticks, **states)
        for label, name, page in TABS:
            with gr.Tab(label, id=name, elem_id=f"tab-{name}") as opened:
                made.append((page, page.build(ctx)))
            ctx.opened[name] = opened
            opened.select(lambda name=name: name, None, tab, **QUIET)
    for page, parts in reversed(made):  # the Model page last: it repeats what the others asked for
        page.wire(ctx, parts)
    connect(ctx, tab)
    _guide.wire(guide)
    return ctx


def connect(ctx: Context, tab: gr.State) -> None:
    """Opening a page, selecting a channel, and the address bar."""
    widgets = [ctx.linked[name] for name in WIDGETS]
    block = gr.context.Context.root_block
    start = block.load(
        on_open,
        None,
        [ctx.tabs, tab, ctx.session, ctx.selection, ctx.locks, ctx.header, *widgets],
        **FOLLOWED,
    )
    for handler, inputs, outputs in ctx.after_opening:
        start.then(handler, inputs, outputs, **LIVE)
    for handler, inputs, outputs in ctx.on_select:
        ctx.selection.change(handler, inputs, outputs, **LIVE)
    written = [tab, ctx.session, ctx.selection, ctx.locks, *widgets]
    changes = [state.change for state in (tab, ctx.session, ctx.selection, ctx.locks)]
    gr.on([*changes, *(widget.change for widget in widgets)], write_link, written, ctx.header, **LIVE)


def on_open(request: gr.Request) -> tuple[Any, ...]:
    """Set the page as the link says; a model nobody has open any more falls back to the bundled one."""
    state = permalink.decode(dict(request.query_params))
    key = state.model if Precomputed.find(state.model) else DEFAULT_MODEL
    chosen = {"layer": state.layer, "channel": state.channel}
    return (
        gr.Tabs(selected=state.tab),
        state.tab,
        key,
        (state.layer, state.channel),
        dict(state.locked),
        gr.HTML(selected=dumps(chosen), chips=_chips(key)),
        *_widget_values(state, key),
    )


def write_link(
    tab: str, session: str, selection: tuple[str | None, int | None], locks: Mapping[str, int], *values: Any
) -> dict[str, Any]:
    """Put the state of the page into the address bar."""
    named = dict(zip(WIDGETS, values, strict=True))
    full, kept = named.pop("activations_full"), (named.pop("kept_8"), named.pop("kept_full"))
    known = {name: value for name, value in named.items() if value is not None}
    known["activation_bits"] = None if full else int(known.get("activation_bits", 8))
    known["allowed_bits"] = (
        tuple(sorted(int(bits) for bits in known.get("allowed_bits", ()))) or permalink.ALL_BITS
    )
    known["classes"] = tuple(int(label) for label in known.get("classes", ()))
    known["exempt"] = _exempt_changes(session, *kept)
    model_name = session if Precomputed.find(session) else DEFAULT_MODEL
    state = PageState(
        tab=tab, model=model_name, layer=selection[0], channel=selection[1], locked=dict(locks), **known
    )
    return gr.update(state=dumps({"query": permalink.encode(state)}))


def _widget_values(state: PageState, key: str = DEFAULT_MODEL) -> list[Any]:
    bits = 8 if state.activation_bits is None else state.activation_bits
    try:
        kept = _exempt.lists(workspace(key).layers, state.exempt)
    except MpqdmError:  # the model is not open any more
        kept = ([], [])
    special = {
        "activation_bits": bits,
        "activations_full": state.activation_bits is None,
        "allowed_bits": list(state.allowed_bits),
        "classes": list(state.classes),
        "kept_8": kept[0],
        "kept_full": kept[1],
    }
    return [special.get(name, getattr(state, name, None)) for name in WIDGETS]


def _exempt_changes(session: str, eight: Any, full: Any) -> dict[str, str | None]:
    """What the lists change; nothing while they contradict each other, which the page says elsewhere."""
    try:
        return _exempt.changes(workspace(session).layers, eight, full)
    except MpqdmError:
        return {}


def _chips(key: str) -> str:
    try:
        return dumps([("model", workspace(key).title)])
    except MpqdmError:
        return dumps([("model", "none loaded")])
