"""What one chooses before a run: preset, losses, and under Custom every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from pages._context import QUIET
from pages._distill_settings import (
    CUSTOM,
    LOSSES,
    MAX_PICTURES,
    MAX_RANK,
    MAX_SEED,
    MAX_WINDOW,
    PRESETS,
    TIMED_MODEL,
    Knobs,
)

CHOICES = [*((preset.label, name) for name, preset in PRESETS.items()), ("Custom", CUSTOM)]
SLIDER_STEPS = 2000


@dataclass(kw_only=True)
class Controls:
    """The widgets, and the group that Custom opens."""

    preset: gr.Radio
    losses: gr.Radio
    seed: gr.Number
    group: gr.Group
    knobs: list[Any]  # in the order of `Knobs`

    @property
    def inputs(self) -> list[Any]:
        """In the order of `_distill_settings.read_order`."""
        return [self.preset, self.losses, self.seed, *self.knobs]

    @classmethod
    def build(cls) -> Controls:
        """Create them; Custom starts with the numbers of the quick preset."""
        preset = gr.Radio(
            CHOICES,
            value="quick",
            label="How long",
            elem_id="distill-preset",
            info=f"Times: {TIMED_MODEL} on two free CPU cores. A stopped run keeps what it has learned.",
        )
        losses = gr.Radio(
            list(LOSSES),
            value="relation",
            label="Losses",
            elem_id="distill-losses",
            info="What the student is asked to match.",
        )
        with gr.Group(visible=False, elem_id="distill-custom") as group:
            knobs = [*_work(), *_weights(), *_rates()]
        seed = gr.Number(
            0,
            label="Seed",
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            elem_id="distill-seed",
            info="The same seed on the same machine trains the same model.",
        )
        return cls(preset=preset, losses=losses, seed=seed, group=group, knobs=knobs)

    def wire(self) -> None:
        """Open and close the group."""
        self.preset.input(lambda name: gr.Group(visible=name == CUSTOM), self.preset, self.group, **QUIET)


def _work() -> list[Any]:
    start = Knobs()
    return [
        _slider("Steps", start.steps, 5, SLIDER_STEPS, 5, "steps", "How often all weights are corrected."),
        _slider(
            "Pictures per step",
            start.pictures,
            1,
            MAX_PICTURES,
            1,
            "pictures",
            "More: a calmer loss, and as much slower.",
        ),
        _slider(
            "Window N",
            start.window,
            1,
            MAX_WINDOW,
            1,
            "window",
            "Neighbouring timesteps a step looks at; the relation loss sees their mean.",
        ),
        _slider(
            "Rank",
            start.rank,
            1,
            MAX_RANK,
            1,
            "rank",
            "Of the corrections. Higher: they can do more, and the file grows.",
        ),
    ]


def _weights() -> list[Any]:
    start = Knobs()
    return [
        _number("Weight of the task loss", start.task_weight, "task-weight", "0 leaves it out."),
        _number(
            "Weight of the relation loss",
            start.relation_weight,
            "relation-weight",
            "Counts with “task + relation”.",
        ),
        _number(
            "Weight of the feature loss",
            start.feature_weight,
            "feature-weight",
            "Counts with “task + features”.",
        ),
        _number(
            "Temperature of the relation loss",
            start.temperature,
            "temperature",
            "Low: only the strongest resemblances count.",
        ),
    ]


def _rates() -> list[Any]:
    start = Knobs()
    return [
        _number(
            "Learning rate of the corrections",
            start.low_rank_rate,
            "low-rank-rate",
            "In mean weight scales of each layer.",
        ),
        _number(
            "Learning rate of the weight scales",
            start.weight_scale_rate,
            "weight-scale-rate",
            "In their own mean values: they sit well from the start.",
        ),
        _number(
            "Learning rate of the input ranges",
            start.activation_rate,
            "activation-rate",
            "In their own first values. Too high, and the doctor sees inputs clipped.",
        ),
    ]


def _slider(label: str, value: int, low: int, high: int, step: int, name: str, info: str) -> gr.Slider:
    return gr.Slider(
        low,
        high,
        value=value,
        step=step,
        precision=0,
        label=label,
        elem_id=f"distill-{name}",
        info=info,
    )


def _number(label: str, value: float, name: str, info: str) -> gr.Number:
    return gr.Number(value, label=label, minimum=0, elem_id=f"distill-{name}", info=info)
