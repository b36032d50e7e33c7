"""The long job of the Compare page: quantize, draw from the same noise, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpqdm_core.allocation import BitPlan
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.progress import Report
from pages._budget_solve import Solved, at_same_budget, number
from pages._compare_asked import OWN, as_asked, read_prompts, read_sampler
from pages._distill_adapters import Offered, student_of
from pages._exempt import denoiser_with
from pages._work import ensure_calibration, ensure_denoiser, phase, quant_settings
from pages._workspace import COMPARISONS, REFERENCES, Workspace

MAX_PICTURES = 32
PREVIEWS = 10  # recorded steps that are decoded for the scrubber; the finished picture comes after them
MAX_SEED = 2**31 - 1
Plan = tuple[str, str, BitPlan]  # key, title, bits


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be drawn."""

    labels: tuple[int, ...] | None  # of classes, or of prompts
    seeds: tuple[int, ...]
    sampler: str = OWN
    prompts: tuple[str, ...] = ()  # instead of those the model brings


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One model's pictures."""

    key: str
    title: str
    sheet: np.ndarray  # (N * H, (P + 1) * W, 3) uint8: a row for each sample, its previews, then the picture
    comparison: Any | None  # with the reference; None for the reference itself
    packed: Any | None = None  # PackedFolder, what its file is made of; None for the reference itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """The reference and everything that was held against it."""

    order: Order
    class_names: tuple[str, ...]
    tile: int
    timesteps: tuple[int, ...]  # of the previews
    reference: Variant
    variants: tuple[Variant, ...]


def read_order(
    work: Workspace,
    classes: Sequence[Any] | None,
    seed: Any,
    count: Any,
    sampler: Any = OWN,
    prompts: Any = "",
) -> Order:
    """Check the widgets: the seeds follow each other, the chosen classes or the prompts take turns.

    Raises:
        SettingsError: a number box is empty or holds no whole number, or the model cannot be drawn so.
        BudgetError: a number is outside its range.
    """
    first = number(seed, "the first seed", 0, MAX_SEED)
    many = number(count, "the number of pictures", 1, MAX_PICTURES)
    if first != int(first) or many != int(many):
        raise SettingsError(f"seed and number of pictures must be whole numbers, got {first:g} and {many:g}")
    seeds = tuple(range(int(first), int(first) + int(many)))
    asked = read_prompts(work, prompts)
    kinds = list(range(len(asked))) or _kinds(work, classes)
    labels = tuple(kinds[place % len(kinds)] for place in range(len(seeds))) if kinds else None
    return Order(labels=labels, seeds=seeds, sampler=read_sampler(work, sampler), prompts=asked)


def _kinds(work: Workspace, classes: Sequence[Any] | None) -> list[int]:
    kinds = [int(kind) for kind in classes or ()] if work.class_names else []
    if wrong := [kind for kind in kinds if not 0 <= kind < len(work.class_names)]:
        raise SettingsError(f"{work.title} has classes 0 to {len(work.class_names) - 1}, got {wrong[0]}")
    return kinds or list(range(len(work.class_names)))


def compare_plans(solved: Solved, order: Order, tuned: Sequence[Offered], report: Report) -> Compared:
    """Draw with full precision, with the plan, uniform bits at the same average and adapters, and compare.

    Raises:
        Cancelled: raised by `report`; nothing is kept then.
        DataError: the plan belongs to a model that was measured again since.
    """
    plans, key = plans_of(solved), comparison_key(solved, order, tuned)
    return COMPARISONS.get_or_make(key, lambda: _compare(solved, plans, tuned, order, report))


def comparison_key(solved: Solved, order: Order, tuned: Sequence[Offered]) -> tuple[Any, ...]:
    """Finds a comparison again."""
    adapters = tuple(offer.adapter.content_hash for offer in tuned)
    return ("compared", *result_key(solved, plans_of(solved)), order, adapters)


def plans_of(solved: Solved) -> list[Plan]:
    """What is held against full precision: the plan, and uniform bits at the same budget."""
    chosen = solved.allocation.plan
    plans = [("plan", f"{solved.choice.settings.policy}, {chosen.mean_bits:.2f} bits", chosen)]
    uniform = at_same_budget(solved, policy="uniform", scope="layer")
    if uniform is not None and uniform.plan.content_hash != chosen.content_hash:
        plans.append(("uniform", f"uniform, {uniform.plan.mean_bits:.2f} bits", uniform.plan))
    return plans


def result_key(solved: Solved, plans: Sequence[Plan]) -> tuple[Any, ...]:
    """Everything a quantized model depends on."""
    return (
        solved.work.key,
        solved.choice.rounding,
        tuple(sorted(solved.changed.items())),
        solved.table.content_hash,
        tuple(plan.content_hash for _, _, plan in plans),
    )


def prepared(solved: Solved, report: Report) -> tuple[Any, Any, Any]:
    """The model with its exempt layers, the calibration, and the settings the plan was priced with.

    Raises:
        DataError: the plan belongs to a model that was measured again since.
    """
    denoiser = denoiser_with(ensure_denoiser(solved.work, report), solved.changed)
    calibration = ensure_calibration(solved.work, report)
    if set(solved.allocation.plan.layer_names) != {layer.name for layer in denoiser.quantizable_layers}:
        raise DataError("the plan belongs to another model: move a slider on Bit budget to make a new one")
    return denoiser, calibration, quant_settings(solved.table, solved.choice.activation_bits)


def _compare(
    solved: Solved, plans: list[Plan], tuned: Sequence[Offered], order: Order, report: Report
) -> Compared:
    from mpqdm_core.comparison import compare
    from mpqdm_core.packing import measure_packed
    from mpqdm_core.quantization import quantize
    from mpqdm_core.sampling import sample

    phases = 2 + 2 * (len(plans) + len(tuned))
    denoiser, calibration, settings = prepared(solved, phase(report, 0, phases, "loading"))
    draw = {"labels": order.labels, "seeds": order.seeds, "record": "all"}
    asked = partial(as_asked, sampler=order.sampler, prompts=order.prompts)
    reference = REFERENCES.get_or_make(
        (solved.work.key, tuple(sorted(solved.changed.items())), order),
        lambda: sample(asked(denoiser), **draw, report=phase(report, 1, phases, "full precision")),
    )
    shown = np.unique(np.linspace(0, len(reference.timesteps) - 1, PREVIEWS).astype(int))
    first = Variant(
        key="reference", title="full precision", sheet=_sheet(denoiser, reference, shown), comparison=None
    )
    makers: list[tuple[str, str, Callable[[Report], Any]]] = [
        (key, title, partial(quantize, denoiser, calibration, plan, settings)) for key, title, plan in plans
    ]
    makers += [(offer.key, offer.title, partial(student_of, offer)) for offer in tuned]
    variants = []
    for index, (key, title, make) in enumerate(makers):
        made = make(phase(report, 2 + 2 * index, phases, f"rounding, {title}"))
        drawn = sample(asked(made.denoiser), **draw, report=phase(report, 3 + 2 * index, phases, title))
        found = compare(reference, drawn)
        variants.append(
            Variant(
                key=key,
                title=title,
                sheet=_sheet(denoiser, drawn, shown),
                comparison=found,
                packed=measure_packed(made),
            )
        )
    return Compared(
        order=order,
        class_names=order.prompts or solved.work.class_names,
        tile=int(reference.images.shape[1]),
        timesteps=tuple(int(reference.timesteps[step]) for step in shown),
        reference=first,
        variants=tuple(variants),
    )


def _sheet(denoiser: Any, samples: Any, shown: np.ndarray) -> np.ndarray:
    from mpqdm_core.sampling import decode

    columns = [decode(denoiser, samples.x0[step]) for step in shown]
    pictures = np.stack([*columns, samples.images], axis=1)  # (N, P + 1, H, W, 3)
    count, steps, height, width, depth = pictures.shape
    return pictures.transpose(0, 2, 1, 3, 4).reshape(count * height, steps * width, depth)
