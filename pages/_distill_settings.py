"""From the widgets of the Distill page to the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mpqdm_core.errors import SettingsError
from pages._budget_solve import Solved, number
from pages._warm import IMPORTING

MAX_STEPS, MAX_PICTURES, MAX_WINDOW, MAX_RANK = 5000, 32, 4, 128
MAX_WEIGHT, MAX_RATE, MAX_TEMPERATURE = 1e6, 1.0, 100.0
MAX_SEED = 2**31 - 1
CUSTOM = "custom"
TIMED_MODEL = "sprites-ldm"  # whose runs the presets are named after
LOSSES = (
    ("task only · EfficientDM", "task"),
    ("task + relation · MPQ-DM", "relation"),
    ("task + features · the paper's ablation", "features"),
    ("as released · MPQ-DM's code, whose relation loss trains nothing", "released"),
)
RELEASED_WEIGHT = 100.0  # of the relation loss in MPQ-DM's released code, on a sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What Custom lets one turn, and a preset fixes."""

    steps: int = 50
    pictures: int = 4  # in a step
    window: int = 2
    rank: int = 32
    task_weight: float = 1.0
    relation_weight: float = 3.0
    feature_weight: float = 0.1
    temperature: float = 0.1  # of the relation loss
    low_rank_rate: float = 0.004  # ten times as published, for runs a fiftieth as long
    weight_scale_rate: float = 2e-3  # these two count in scales' own values: published
    activation_rate: float = 5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A run one starts without thinking."""

    label: str
    knobs: Knobs
    seconds: int  # with TIMED_MODEL on two free CPU cores


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(label="Quick, about 30 s", knobs=Knobs(), seconds=30),
        "standard": Preset(label="Standard, about 2 min", knobs=Knobs(steps=320), seconds=120),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What is to be trained."""

    solved: Solved
    settings: Any  # FinetuneSettings
    losses: str

    @property
    def teacher_pictures(self) -> int:
        """How many pictures the teacher is recorded on: some steps' worth, and four to judge by."""
        return min(128, 4 * int(self.settings.batch_size)) + 4

    @property
    def title(self) -> str:
        """One line about it."""
        choice, plan = self.solved.choice, self.solved.allocation.plan
        inputs = "full-precision" if choice.activation_bits is None else f"{choice.activation_bits}-bit"
        name = {value: label for label, value in LOSSES}[self.losses].split(" · ")[0]
        return (
            f"{choice.settings.policy}, {plan.mean_bits:.2f} weight bits, {inputs} activations; "
            f"{name}, {self.settings.steps} steps, seed {self.settings.seed}"
        )


def read_order(solved: Solved, preset: str, losses: str, seed: Any, *custom: Any) -> Order:
    """Check the widgets.

    Args:
        solved: the current bit budget.
        preset: a key of `PRESETS`, or "custom".
        losses: a value of `LOSSES`.
        seed: of the run.
        custom: the widgets of Custom, in the order of `Knobs`; used with that preset only.

    Raises:
        SettingsError: something is missing, no number, or contradicts something else.
        BudgetError: a number is outside its range.
    """
    with IMPORTING:
        from mpqdm_core.finetune_settings import FinetuneSettings

    if losses not in {value for _, value in LOSSES}:
        raise SettingsError(f"there are no losses called {losses!r}: choose one of the four")
    knobs = read_knobs(preset, *custom)
    weights: dict[str, Any] = {"task_weight": knobs.task_weight, "temperature": knobs.temperature}
    if losses == "relation":
        weights["relation_weight"] = knobs.relation_weight
    elif losses == "features":
        weights["feature_weight"] = knobs.feature_weight
    elif losses == "released":
        weights |= {
            "relation_weight": RELEASED_WEIGHT,
            "temperature": 1.0,
            "reduction": "sum",
            "detach_features": True,
        }
    settings = FinetuneSettings(
        steps=knobs.steps,
        batch_size=knobs.pictures,
        window=knobs.window,
        rank=knobs.rank,
        seed=whole(seed, "the seed", 0, MAX_SEED),
        low_rank_rate=knobs.low_rank_rate,
        weight_scale_rate=knobs.weight_scale_rate,
        weight_zero_point_rate=knobs.weight_scale_rate,
        activation_rate=knobs.activation_rate,
        relative_rates=True,
        relative_ranges=True,
        shuffle=True,
        **weights,
    )
    return Order(solved=solved, settings=settings, losses=losses)


def read_knobs(preset: str, *custom: Any) -> Knobs:
    """The preset's own, or those of the widgets.

    Raises:
        SettingsError: something is missing or no number.
        BudgetError: a number is outside its range.
    """
    if preset in PRESETS:
        return PRESETS[preset].knobs
    if preset != CUSTOM:
        raise SettingsError(f"there is no preset called {preset!r}: choose one of the three")
    steps, pictures, window, rank, task, relation, feature, temperature, *rates = custom
    low_rank, weight_scale, activation = rates
    return Knobs(
        steps=whole(steps, "the number of steps", 1, MAX_STEPS),
        pictures=whole(pictures, "the number of pictures per step", 1, MAX_PICTURES),
        window=whole(window, "the window", 1, MAX_WINDOW),
        rank=whole(rank, "the rank", 1, MAX_RANK),
        task_weight=number(task, "the weight of the task loss", 0, MAX_WEIGHT),
        relation_weight=number(relation, "the weight of the relation loss", 0, MAX_WEIGHT),
        feature_weight=number(feature, "the weight of the feature loss", 0, MAX_WEIGHT),
        temperature=number(temperature, "the temperature", 1e-3, MAX_TEMPERATURE),
        low_rank_rate=number(low_rank, "the learning rate of the corrections", 0, MAX_RATE),
        weight_scale_rate=number(weight_scale, "the learning rate of the weight scales", 0, MAX_RATE),
        activation_rate=number(activation, "the learning rate of the input ranges", 0, MAX_RATE),
    )


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number within [low, high].

    Raises:
        SettingsError: it is missing or not whole.
        BudgetError: it is outside the range.
    """
    found = number(value, name, low, high)
    if found != int(found):
        raise SettingsError(f"{name} must be a whole number, got {found:g}")
    return int(found)
