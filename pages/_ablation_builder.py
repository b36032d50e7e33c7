"""The sweep builder: what to vary, and how much work each cell is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.allocation.settings import POLICIES, SCOPES, WEIGHTINGS
from mpqdm_core.board.sweep import FINETUNINGS, GRIDS, Effort, SweepSettings
from mpqdm_core.errors import SettingsError
from pages._budget_solve import number
from pages._sliders import may_be_empty

FULL = "full"
INPUTS = (("4", 4), ("6", 6), ("8", 8), ("full precision", FULL))
TRAINED = {
    "none": "none: rounding only",
    "efficientdm": "EfficientDM",
    "mpqdm-as-released": "MPQ-DM as released",
    "mpqdm-corrected": "MPQ-DM corrected",
    "ours": "ours",
}
MAX_PICTURES, MAX_STEPS, MAX_NUMBERS = 64, 2000, 40


@dataclass(kw_only=True)
class Builder:
    """Its components, in the order of `read_sweep`."""

    policies: gr.CheckboxGroup
    weight_bits: gr.Textbox
    activation_bits: gr.CheckboxGroup
    finetunings: gr.CheckboxGroup
    relations: gr.CheckboxGroup
    seeds: gr.Textbox
    weightings: gr.CheckboxGroup
    scopes: gr.CheckboxGroup
    grids: gr.CheckboxGroup
    pictures: gr.Slider
    steps: gr.Slider

    @classmethod
    def build(cls) -> Builder:
        """Create the components."""
        policies = gr.CheckboxGroup(
            list(POLICIES),
            value=["uniform", "optimal"],
            label="Policy",
            elem_id="sweep-policies",
            info="How bits are given to channels; as on the Bit budget tab.",
        )
        weight_bits = gr.Textbox(
            "3, 4",
            label="Average weight bits",
            elem_id="sweep-bits",
            info="Numbers from 1 to 8, separated by commas.",
        )
        activation_bits = gr.CheckboxGroup(
            list(INPUTS),
            value=[8],
            label="Activation bits",
            elem_id="sweep-inputs",
            info="Of the inputs of every layer in the budget.",
        )
        finetunings = gr.CheckboxGroup(
            [(TRAINED[name], name) for name in FINETUNINGS],
            value=["none"],
            label="Fine-tuning",
            elem_id="sweep-finetuning",
            info="Each as that recipe does it, with few steps: much slower than rounding only.",
        )
        relations = gr.CheckboxGroup(
            [("on", True), ("off", False)],
            value=[True],
            label="Relation distillation (TRD)",
            elem_id="sweep-relation",
            info="Whether the relation loss trains too; counts with fine-tuning only.",
        )
        with gr.Accordion("More factors, and how much work a cell is", open=False, elem_id="sweep-more"):
            seeds = gr.Textbox(
                "0",
                label="Seeds",
                elem_id="sweep-seeds",
                info="Each has its own noise for the pictures and its own random choices; the calibration is "
                "the same. A few show how much is chance.",
            )
            weightings = gr.CheckboxGroup(
                list(WEIGHTINGS),
                value=["sensitivity"],
                label="Errors weighed by",
                elem_id="sweep-weightings",
                info="What makes one channel's error count more than another's.",
            )
            scopes = gr.CheckboxGroup(
                list(SCOPES),
                value=["model"],
                label="Budget for",
                elem_id="sweep-scopes",
                info="Each layer meets the average on its own, or the whole model does.",
            )
            grids = gr.CheckboxGroup(
                list(GRIDS),
                value=["mid-rise"],
                label="Levels of the weights",
                elem_id="sweep-grids",
                info="Affine is the paper's code; another grid is measured first, which takes a while.",
            )
            pictures = gr.Slider(
                1,
                MAX_PICTURES,
                value=8,
                step=1,
                precision=0,
                label="Pictures of each cell",
                elem_id="sweep-pictures",
                info="More make the intervals narrower. The first eight are kept to look at.",
            )
            steps = gr.Slider(
                1,
                MAX_STEPS,
                value=60,
                step=1,
                precision=0,
                label="Steps of fine-tuning",
                elem_id="sweep-steps",
                info="Published recipes take 16,000.",
            )
        return cls(
            policies=policies,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            finetunings=finetunings,
            relations=relations,
            seeds=seeds,
            weightings=weightings,
            scopes=scopes,
            grids=grids,
            pictures=may_be_empty(pictures),
            steps=may_be_empty(steps),
        )

    @property
    def controls(self) -> list[Any]:
        """The inputs of a sweep."""
        return list(vars(self).values())


def read_sweep(
    policies: Sequence[str],
    weight_bits: str,
    activation_bits: Sequence[Any],
    finetunings: Sequence[str],
    relations: Sequence[bool],
    seeds: str,
    weightings: Sequence[str],
    scopes: Sequence[str],
    grids: Sequence[str],
    pictures: Any,
    steps: Any,
) -> SweepSettings:
    """Check the widgets.

    Raises:
        SettingsError: a factor is empty, or a text holds something else than numbers.
        BudgetError: a number is outside its range.
    """
    for name, chosen in (("policy", policies), ("number of activation bits", activation_bits)):
        if not chosen:
            raise SettingsError(f"tick at least one {name}")
    effort = Effort(
        pictures=int(number(pictures, "the number of pictures", 1, MAX_PICTURES)),
        steps=int(number(steps, "the number of steps", 1, MAX_STEPS)),
    )
    return SweepSettings(
        policies=tuple(policies),
        weightings=tuple(weightings) or ("sensitivity",),
        scopes=tuple(scopes) or ("model",),
        grids=tuple(grids) or ("mid-rise",),
        average_bits=_numbers(weight_bits, "the average weight bits"),
        activation_bits=tuple(None if bits == FULL else int(bits) for bits in activation_bits),
        finetunings=tuple(finetunings) or ("none",),
        relations=tuple(relations) or (True,),
        seeds=tuple(int(seed) for seed in _numbers(seeds, "the seeds")),
        effort=effort,
    )


def widget_values(settings: SweepSettings) -> list[Any]:
    """What the widgets show for a sweep: `read_sweep` reads it back."""
    return [
        list(settings.policies),
        ", ".join(f"{bits:g}" for bits in settings.average_bits),
        [FULL if bits is None else bits for bits in settings.activation_bits],
        list(settings.finetunings),
        list(settings.relations),
        ", ".join(str(seed) for seed in settings.seeds),
        list(settings.weightings),
        list(settings.scopes),
        list(settings.grids),
        settings.effort.pictures,
        settings.effort.steps,
    ]


def _numbers(text: str, name: str) -> tuple[float, ...]:
    parts = [part for part in re.split(r"[,;\s]+", str(text or "").strip()) if part]
    if len(parts) > MAX_NUMBERS or not all(
        re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", part) for part in parts
    ):
        raise SettingsError(f"{name} must be numbers separated by commas, got {str(text)[:60]!r}")
    if not parts:
        raise SettingsError(f"{name} must be given")
    return tuple(dict.fromkeys(float(part) for part in parts))
