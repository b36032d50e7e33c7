"""Sets of pictures as sets: the long job, and the table it ends in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpqdm_core.errors import SettingsError
from mpqdm_core.progress import Report
from pages._budget_solve import Solved, number
from pages._compare_work import Plan, plans_of, prepared, result_key
from pages._html import table, warning
from pages._work import bundled_names, phase
from pages._workspace import COMPARISONS, Workspace

SMALLEST, LARGEST, USUAL = 50, 2000, 200  # pictures
FAMILY = "sprites-"  # the bundled models that the encoder knows
NOT_JUDGED = (
    "The encoder that judges sets knows the sprites of the bundled models and nothing else, so that sets of "
    "pictures of {title} cannot be measured here."
)
ROWS = (
    ("fid", None, "FID to full precision (lower is closer)"),
    ("sfid", None, "sFID to full precision (lower is closer)"),
    ("precision", None, "Precision against full precision (1 is best)"),
    ("recall", None, "Recall against full precision (1 is best)"),
    ("fid_to_real", "fid_to_real_reference", "FID to real pictures (lower is better)"),
    ("sfid_to_real", "sfid_to_real_reference", "sFID to real pictures (lower is better)"),
    ("inception_score", "inception_score_reference", "Inception score (higher is better, at most 10)"),
    ("class_accuracy", "class_accuracy_reference", "Recognised as the class asked for (1 is best)"),
)
AGREEMENT = "All that the caption names is recognised (1 is best)"


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredSets:
    """One column for each model."""

    count: int  # pictures of each model, and real ones
    columns: tuple[tuple[str, Any], ...]  # title, DistributionComparison with full precision
    agreement: tuple[Any, ...] = ()  # of full precision, then of the columns; for a model asked in words


def is_judged(work: Workspace) -> bool:
    """Whether the encoder knows what this model draws: the sprites."""
    from mpqdm_core.zoo.sprites import KINDS

    bundled = work.source.startswith(FAMILY) and work.source in bundled_names()
    return bundled or (work.class_names == tuple(KINDS) and not work.prompted)


def read_count(value: Any) -> int:
    """Check the number of pictures.

    Raises:
        SettingsError: it is no whole number.
        BudgetError: it is outside its range.
    """
    count = number(value, "the number of pictures of a set", SMALLEST, LARGEST)
    if count != int(count):
        raise SettingsError(f"the number of pictures must be a whole number, got {count:g}")
    return int(count)


def measure_sets(solved: Solved, count: int, report: Report) -> MeasuredSets:
    """Draw sets with full precision, with the plan and with uniform bits, and measure them as sets.

    Raises:
        Cancelled: raised by `report`; nothing is kept then.
        SettingsError: the encoder does not know this model's pictures.
    """
    if not is_judged(solved.work):
        raise SettingsError(NOT_JUDGED.format(title=solved.work.title))
    plans = plans_of(solved)
    key = ("sets", *result_key(solved, plans), count)
    return COMPARISONS.get_or_make(key, lambda: _measure(solved, plans, count, report))


def sets_table(found: MeasuredSets) -> str:
    """The metrics, a column a model, with intervals and the warnings that they carry."""
    rows = [
        [words, _cell(getattr(found.columns[0][1], reference)) if reference else ""]
        + [_cell(getattr(column, name)) for _, column in found.columns]
        for name, reference, words in ROWS
        if name != "class_accuracy" or _asked_for_a_class(found)
    ]
    if found.agreement:
        rows.append([AGREEMENT, *map(_cell, found.agreement)])
    titles = [title for title, _ in found.columns]
    n = found.count
    told = (
        f"n = {n} pictures of each model and {n} real ones, one seed each; "
        "95 % intervals from drawing the set again."
    )
    return (
        table(["As a set", "full precision", *titles], rows)
        + f"<p class='mpq-hint'>{told}</p>"
        + warning(" ".join(warnings(found)))
    )


def warnings(found: MeasuredSets) -> list[str]:
    """The warnings of all metrics, each once; those about one model begin with its name."""
    found_by_text: dict[str, list[str]] = {}
    for title, column in found.columns:
        for name, _, _ in ROWS:
            if text := getattr(getattr(column, name), "warning", None):
                found_by_text.setdefault(text, []).append(title)
    several = len(found.columns) > 1
    return [
        text
        if not several or set(titles) == {title for title, _ in found.columns}
        else f"{titles[0]}: {text}"
        for text, titles in found_by_text.items()
    ]


def _measure(solved: Solved, plans: Sequence[Plan], count: int, report: Report) -> MeasuredSets:
    from mpqdm_core.comparison import compare
    from mpqdm_core.families import with_prompts
    from mpqdm_core.integer_layers import multiply_integers_
    from mpqdm_core.intervals import bootstrap_mean
    from mpqdm_core.quantization import quantize
    from mpqdm_core.sampling import Samples, sample
    from mpqdm_core.zoo.encoder import load_encoder
    from mpqdm_core.zoo.quality import agreement, ask, encode_real

    phases = 2 + 2 * len(plans)
    denoiser, calibration, settings = prepared(solved, phase(report, 0, phases, "loading"))
    questions, prompted = ask(denoiser, count), solved.work.prompted
    draw = {"labels": questions.labels, "seeds": range(count)}

    def agreed(drawn: Samples) -> list[Any]:
        return [bootstrap_mean(agreement(drawn.images, questions.asked))] if prompted else []

    reference = sample(questions.denoiser, **draw, report=phase(report, 1, phases, "full precision"))
    encoder, real = load_encoder(), encode_real(count, side=reference.images.shape[1])
    columns, captions = [], agreed(reference)
    for index, (_, title, plan) in enumerate(plans):
        made = quantize(denoiser, calibration, plan, settings)
        multiply_integers_(made.denoiser.network)
        asked = with_prompts(made.denoiser, questions.denoiser.class_names) if prompted else made.denoiser
        drawn = sample(asked, **draw, report=phase(report, 2 + 2 * index, phases, title))
        told = phase(report, 3 + 2 * index, phases, title)
        found = compare(reference, drawn, encoder=encoder, real_features=real, report=told)
        columns.append((title, found.distribution))
        captions += agreed(drawn)
    return MeasuredSets(count=count, columns=tuple(columns), agreement=tuple(captions))


def _asked_for_a_class(found: MeasuredSets) -> bool:
    """Whether a class was asked for: neither a caption nor nothing."""
    return not found.agreement and any(column.class_accuracy is not None for _, column in found.columns)


def _cell(result: Any) -> str:
    if result is None:
        return "n/a"
    interval = result.interval
    shown = f"{result.value:.3g}"
    return shown if interval is None else f"{shown}  [{interval.low:.3g}, {interval.high:.3g}]"
