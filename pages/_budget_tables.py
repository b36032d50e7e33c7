"""Finding, measuring and joining error tables: one for each rounding, with the layers that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import DataError
from mpqdm_core.progress import Report
from pages import _exempt
from pages._exempt import Changes
from pages._rounding import PRESCALE_ALPHA, Rounding
from pages._work import ensure_calibration, ensure_denoiser, phase
from pages._workspace import Workspace

NAMED = 3  # layers a sentence lists
ROWS = ("error", "energy", "kurtosis")


class NotMeasuredError(DataError):
    """Prices are missing that the Measure button of the page can add."""


class UnknownModelError(DataError):
    """Nothing was measured on this model at all."""

    def __init__(self, title: str) -> None:
        """Name the model."""
        super().__init__(f"{title} has not been measured yet: press Measure on the Model page")


def find(work: Workspace, rounding: Rounding, changed: Changes) -> ErrorTable:
    """The table of exactly the layers that share the budget.

    Raises:
        NotMeasuredError: it must be measured first; the sentence says what is missing.
        UnknownModelError: nothing was measured on this model at all.
    """
    if not work.measured_bits():
        raise UnknownModelError(work.title)
    table = lookup(work, rounding)
    if table is None:
        raise NotMeasuredError(_sentence(work, rounding))
    wanted = names(work, changed)
    if missing := [name for name in wanted if name not in table.layer_names]:
        shown = ", ".join(missing[:NAMED]) + (" and others" if len(missing) > NAMED else "")
        raise NotMeasuredError(
            f"Nothing was measured yet for {shown}, which the family of {work.title} keeps out of the "
            "budget: press Measure to price what the first bits there are worth"
        )
    return table if table.layer_names == wanted else select(table, wanted)


def lookup(work: Workspace, rounding: Rounding) -> ErrorTable | None:
    """Everything measured with this rounding, perhaps of more layers than share the budget."""
    if rounding in work.extra:
        return work.extra[rounding]
    table = work.table(rounding.activation_bits)
    return table if table is not None and rounding.holds_for(table.settings) else None


def names(work: Workspace, changed: Changes) -> tuple[str, ...]:
    """Layers that share the budget, network order."""
    rows = _exempt.apply(work.layers, changed)
    return tuple(row.name for row in rows if row.exempt is None) or work.layer_names()


def measure_missing(work: Workspace, rounding: Rounding, changed: Changes, report: Report) -> Workspace:
    """Measure what `find` misses, with the calibration that is there; nothing else is measured again.

    Raises:
        Cancelled: raised by `report`; nothing is kept then.
    """
    from mpqdm_core.effects import affordable_effects
    from mpqdm_core.measure import measure_error_table
    from mpqdm_core.quant_settings import QuantSettings

    denoiser = ensure_denoiser(work, phase(report, 0, 5, "loading"))
    calibration = ensure_calibration(work, phase(report, 1, 5, "calibrating"))
    known = lookup(work, rounding)
    if known is not None and known.settings.get("calibration_hash") != calibration.content_hash:
        known = None  # prices of two calibrations are not mixed
    wanted = [layer.name for layer in _exempt.denoiser_with(denoiser, changed).quantizable_layers]
    missing = [name for name in wanted if known is None or name not in known.layer_names]
    only = _only(denoiser, missing)
    settings = QuantSettings(
        activation_bits=rounding.activation_bits,
        grid=rounding.grid,  # type: ignore[arg-type]
        range_exponent=rounding.range_exponent,
        prescale_alpha=PRESCALE_ALPHA if rounding.prescale else None,
    )
    sensitivity = _sensitivity(work, denoiser, calibration, missing, phase(report, 2, 5, "sensitivity"))
    effects = affordable_effects(only, calibration, settings, phase(report, 3, 5, "effects of layers"))
    told = phase(report, 4, 5, "error table")
    made = measure_error_table(only, calibration, settings, told, sensitivity=sensitivity, effects=effects)
    order = [layer.name for layer in denoiser.layers]
    with work.lock:
        work.extra[rounding] = made if known is None else join(known, made, order)
    return work


def select(table: ErrorTable, wanted: Sequence[str]) -> ErrorTable:
    """The rows of some layers, in their order."""
    places = [table.layer_names.index(name) for name in wanted]
    slices = [table.layer_slice(name) for name in wanted]
    rows = np.concatenate([np.arange(part.start, part.stop) for part in slices])
    return replace(
        table,
        layer_names=tuple(wanted),
        layer_start=np.cumsum([0, *(part.stop - part.start for part in slices)]),
        weights_per_channel=table.weights_per_channel[places],
        sensitivity=None if table.sensitivity is None else table.sensitivity[rows],
        layer_effect=None if table.layer_effect is None else table.layer_effect[places],
        **{name: getattr(table, name)[rows] for name in ROWS},
    )


def join(first: ErrorTable, second: ErrorTable, order: Sequence[str]) -> ErrorTable:
    """Two tables of different layers as one, in network order, with the settings of the second."""
    both = ErrorTable(
        layer_names=(*first.layer_names, *second.layer_names),
        layer_start=np.concatenate([first.layer_start, first.channels + second.layer_start[1:]]),
        weights_per_channel=np.concatenate([first.weights_per_channel, second.weights_per_channel]),
        sensitivity=_both(first.sensitivity, second.sensitivity),
        layer_effect=_both(first.layer_effect, second.layer_effect),
        settings=second.settings,
        **{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in ROWS},
    )
    return select(both, [name for name in order if name in both.layer_names])


def _both(first: NDArray[Any] | None, second: NDArray[Any] | None) -> NDArray[Any] | None:
    """One after the other, if both were measured."""
    return None if first is None or second is None else np.concatenate([first, second])


def _only(denoiser: Any, wanted: Sequence[str]) -> Any:
    """The model with these layers in the budget and no others."""
    changed = {layer.name: None if layer.name in wanted else _exempt.FULL for layer in denoiser.layers}
    return _exempt.denoiser_with(denoiser, changed)


def _sensitivity(
    work: Workspace, denoiser: Any, calibration: Any, wanted: Sequence[str], report: Report
) -> dict[str, Any]:
    """Sensitivity by layer: it does not depend on the rounding, so that measured tables know most of it."""
    import torch

    from mpqdm_core.sensitivity import channel_sensitivity

    found: dict[str, Any] = {}
    for table in (work.table(next(iter(work.measured_bits()), None)), *work.extra.values()):
        if table is None or table.sensitivity is None:
            continue
        if table.settings.get("calibration_hash") != calibration.content_hash:
            continue
        found |= {
            name: torch.from_numpy(np.array(table.sensitivity[table.layer_slice(name)]))
            for name in table.layer_names
        }
    if lacking := [name for name in wanted if name not in found]:
        found |= channel_sensitivity(_only(denoiser, lacking), calibration, report=report)
    return found


def _sentence(work: Workspace, rounding: Rounding) -> str:
    if work.table(rounding.activation_bits) is not None:
        return (
            f"{work.title} was measured with {Rounding().words}, which says nothing about "
            f"{rounding.words}: press Measure, about a minute"
        )
    have = ", ".join("full precision" if bits is None else str(bits) for bits in work.measured_bits())
    return (
        f"{work.title} has not been measured with activations at {rounding.inputs} (measured: {have}): "
        "press Measure, about a minute"
    )
