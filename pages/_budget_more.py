"""More settings of the budget: MPQ-DM+, how weights are rounded, and which layers stay outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import MpqdmError
from pages import _budget_solve as solving
from pages import _exempt
from pages._budget_tables import measure_missing
from pages._context import HEAVY, LIVE, QUIET, Context, as_sentences
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._layers import short
from pages._precomputed import DEFAULT_MODEL
from pages._session import open_bundled, workspace
from pages._sliders import may_be_empty
from pages._text import text
from pages._work import job

STOPPED = "Stopped. Nothing was added."
GRIDS = (("mid-rise · symmetric", "mid-rise"), ("affine · as the paper's code", "affine"))
RANGES = (("power 2.4 · as the paper's code", 2.4), ("2.0 · plain MSE", 2.0))


@dataclass(kw_only=True)
class More:
    """Components of the fold-out part, and of measuring what it asks for."""

    extra_groups: gr.Slider
    grid: gr.Radio
    range_exponent: gr.Radio
    prescale: gr.Checkbox
    eight: gr.Dropdown
    full: gr.Dropdown
    rules: gr.Button

    @classmethod
    def build(cls) -> More:
        """Create the components."""
        with gr.Accordion("More settings", open=False, elem_id="more-settings"):
            extra_groups = gr.Slider(
                0,
                solving.MAX_EXTRA,
                value=0,
                step=1,
                precision=0,
                interactive=False,
                label="MPQ-DM+: extra groups",
                elem_id="extra-groups",
                info="Our reading of MPQ-DM+: extra bits without a matching down-group, so the mean exceeds "
                "the budget. Works with the policy kurtosis.",
            )
            grid = gr.Radio(
                list(GRIDS),
                value="mid-rise",
                label="Levels of the weights",
                elem_id="grid",
                info="Mid-rise wastes no level at 1 and 2 bits.",
            )
            range_exponent = gr.Radio(
                list(RANGES),
                value=2.4,
                label="Range search",
                elem_id="range-exponent",
                info="Which power of the rounding error the range of a channel minimises.",
            )
            prescale = gr.Checkbox(
                True,
                label="Pre-scaling",
                elem_id="prescale",
                info="Moves outliers of the inputs into the weights, as SmoothQuant.",
            )
            gr.Markdown(text("budget_exempt"), elem_classes=["mpq-note"])
            eight, full = _lists()
            rules = gr.Button("Back to the family's rules", size="sm", elem_id="exempt-rules")
        return cls(
            extra_groups=may_be_empty(extra_groups),
            grid=grid,
            range_exponent=range_exponent,
            prescale=prescale,
            eight=eight,
            full=full,
            rules=rules,
        )

    @property
    def controls(self) -> list[Any]:
        """Inputs of the allocation, after the locks in the order of `read_choice`."""
        return [self.extra_groups, self.grid, self.range_exponent, self.prescale, self.eight, self.full]

    def wire(
        self, ctx: Context, policy: Any, solve: Callable[..., Any], inputs: list[Any], outputs: list[Any]
    ) -> None:
        """Solve again when anything changes, from a link too."""
        events = [control.input for control in self.controls[:4]]
        gr.on([*events, self.eight.change, self.full.change], solve, inputs, outputs, **LIVE)
        policy.change(on_policy, policy, self.extra_groups, **LIVE)
        self.rules.click(on_rules, ctx.session, [self.eight, self.full], **LIVE)
        ctx.on_model.append((on_layers, [ctx.session, self.eight, self.full], [self.eight, self.full]))


@dataclass(kw_only=True)
class Measuring:
    """Button, progress and Stop of measuring what the settings need."""

    measure: gr.Button
    stop: gr.Button
    status: gr.HTML

    @classmethod
    def build(cls) -> Measuring:
        """Create the components, hidden until something is missing."""
        with gr.Row():
            measure = gr.Button("Measure", variant="primary", visible=False, elem_id="measure-missing")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop-missing")
        return cls(measure=measure, stop=stop, status=gr.HTML(elem_id="missing-status"))

    def wire(
        self,
        ctx: Context,
        controls: list[Any],
        solve: Callable[..., Any],
        inputs: list[Any],
        outputs: list[Any],
    ) -> None:
        """Measure with progress, then solve."""
        shown = [self.status, self.measure, self.stop]
        running = self.measure.click(
            on_measure_missing,
            [ctx.session, *controls],
            shown,
            show_progress="hidden",
            api_visibility="private",
            **HEAVY,
        )
        running.success(solve, inputs, outputs, **LIVE)
        ended = {"inputs": None, "outputs": shown, **QUIET}
        running.failure(lambda: ("", gr.Button(visible=True), gr.Button(visible=False)), **ended)
        self.stop.click(
            lambda: (outcome(STOPPED), gr.Button(visible=True), gr.Button(visible=False)),
            cancels=[running],
            **ended,
        )


def on_policy(policy: str) -> Any:
    """Extra groups belong to the paper's swap."""
    return gr.Slider(interactive=policy == "kurtosis")


def on_rules(session: str | None) -> tuple[Any, Any]:
    """Exempt what the family exempts."""
    with as_sentences():
        eight, full = _exempt.rules(workspace(session).layers)
        return _list(value=eight), _list(value=full)


def on_layers(session: str | None, eight: list[str] | None, full: list[str] | None) -> tuple[Any, Any]:
    """Offer the layers of another model; a choice that suits it stays, as does one from a link."""
    with as_sentences():
        layers = workspace(session).layers
    names = _names(layers)
    try:
        _exempt.changes(layers, eight or [], full or [])
    except MpqdmError:
        eight, full = _exempt.rules(layers)
    return _list(choices=names, value=eight), _list(choices=names, value=full)


def on_measure_missing(session: str | None, *controls: Any) -> Iterator[tuple[Any, ...]]:
    """Add the prices that the settings need, with progress."""
    with as_sentences():
        work, choice = workspace(session), solving.read_choice(*controls)
        for event in stream(job(measure_missing, work, choice.rounding, choice.changed(work))):
            if isinstance(event, Step):
                bar = progress(event.done, event.total, event.message, event.seconds)
                yield bar, gr.Button(visible=False), gr.Button(visible=True)
            else:
                words = outcome(f"Measured in {event.seconds:.0f} s.")
                yield words, gr.Button(visible=False), gr.Button(visible=False)


def _lists() -> tuple[gr.Dropdown, gr.Dropdown]:
    """Two lists of layers, filled for the model one sees first."""
    try:
        layers = open_bundled(DEFAULT_MODEL).layers
    except MpqdmError:  # nothing ships with it: filled when a model is loaded
        layers = ()
    eight, full = _exempt.rules(layers)
    names = _names(layers)
    return (
        _list(choices=names, value=eight, label="Kept at 8 bits", elem_id="kept-8"),
        _list(choices=names, value=full, label="Kept in full precision", elem_id="kept-full"),
    )


def _names(layers: Sequence[Any]) -> list[tuple[str, str]]:
    """The layers that run, by short and by full name."""
    return [(short(layer.name), layer.name) for layer in layers if layer.macs > 0]


def _list(**changes: Any) -> gr.Dropdown:
    """A list of layers; the names of another model are refused by a sentence of ours, not by the widget."""
    return gr.Dropdown(multiselect=True, allow_custom_value=True, **changes)
