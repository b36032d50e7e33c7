"""From an error table and a budget to a bit plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.budget import Budget, split_budget
from mpqdm_core.allocation.descent import allocate_by_error
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.allocation.ranked import allocate_ranked
from mpqdm_core.allocation.settings import SWAP_POLICIES, AllocationSettings
from mpqdm_core.allocation.worth import Worth, chosen_error, layer_sums, priced
from mpqdm_core.error_table import ErrorTable


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Allocation:
    """A bit plan and what the table predicts for it.

    Attributes:
        plan: the bits.
        predicted_error: sum over all channels of weight times error at the given bits. With weighting `none`
            the weight is 1, with `sensitivity` the sensitivity; with `relative` the sum is the mean over
            channels of error by output energy. Where the table has the effects of layers, `sensitivity`
            scales errors by them, see `worth.priced`. Channels worth nothing add nothing.
        predicted_error_uniform: the same sum for uniform bits at the same average and the same locks. Between
            two allowed widths it is interpolated: the expected error when chance decides who gets the larger
            one.
        per_layer_error: (L,) float64, adds up to `predicted_error`.
        search_curves: for the swap policies, layer (or `WHOLE_MODEL`) -> (max_groups + 1,) weighted error of
            its free channels at g = 0, 1, ...; NaN where that many groups are not possible.
        notes: sentences on what was decided and why.
    """

    plan: BitPlan
    predicted_error: float
    predicted_error_uniform: float
    per_layer_error: NDArray[np.float64]
    search_curves: Mapping[str, NDArray[np.float64]]
    notes: tuple[str, ...]


def allocate(table: ErrorTable, settings: AllocationSettings) -> Allocation:
    """Give bits to channels so that their mean per weight meets the budget.

    The mean is exact for `kurtosis`, `gain`, `random` and `head-tail` with scope `layer` at an average that
    is an allowed width; otherwise it is never above the budget and less than one channel's step below it, in
    each layer (scope `layer`) or in the model (scope `model`). Two exceptions, both said in the notes: extra
    groups exceed the budget, and `optimal` does not spend bits on channels that are worth nothing.

    Raises:
        BudgetError: the average is outside `feasible_range`.
        SettingsError: a locked layer is not in the table, or the table has no sensitivity and needs it.
    """
    budget = split_budget(table, settings)
    table, worth = priced(table, settings.weighting)
    bits, curves, notes = decide(table, worth, budget, settings)
    plan = BitPlan(
        layer_names=table.layer_names,
        layer_start=table.layer_start,
        weights_per_channel=table.weights_per_channel,
        bits=bits,
        settings=settings,
    )
    per_layer = chosen_error(table, worth, bits)
    return Allocation(
        plan=plan,
        predicted_error=float(per_layer.sum()),
        predicted_error_uniform=uniform_error(table, worth, budget, settings, plan.mean_bits),
        per_layer_error=per_layer,
        search_curves=curves,
        notes=budget.notes + worth.notes + notes,
    )


def decide(
    table: ErrorTable, worth: Worth, budget: Budget, settings: AllocationSettings
) -> tuple[NDArray[np.int8], dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Bits of all channels (C,), locked ones included; search curves; the policy's notes."""
    bits = budget.bits.copy()
    if len(budget.free) == 0:
        return bits, {}, ()
    if settings.policy in ("gain", "optimal"):
        bits[budget.free], notes = allocate_by_error(table, worth, budget, settings)
        return bits, {}, notes
    bits[budget.free], curve, notes = allocate_ranked(table, worth, budget, settings)
    searched = settings.policy in SWAP_POLICIES
    return bits, dict(zip(budget.group_names, curve, strict=True)) if searched else {}, notes


def uniform_error(
    table: ErrorTable, worth: Worth, budget: Budget, settings: AllocationSettings, mean_bits: float
) -> float:
    """Weighted error of uniform bits with the same locks, interpolated between two allowed widths.

    The average is the budget's, or the plan's own where extra groups exceed it.
    """
    average = budget.average
    if settings.extra_groups and len(budget.free):
        share = budget.group_weights.sum() / (table.weights_per_channel * np.diff(table.layer_start)).sum()
        average += max(0.0, mean_bits - settings.average_bits) / float(share)
    allowed = np.array(settings.allowed_bits, dtype=np.float64)
    low = int(allowed[allowed <= average + 1e-9].max())
    high = int(allowed[allowed >= average - 1e-9].min(initial=allowed[-1]))
    part = 0.0 if high == low else (average - low) / (high - low)
    error = table.error[:, low - 1] * np.float32(1 - part) + table.error[:, high - 1] * np.float32(part)
    if len(budget.free) < table.channels:
        locked = np.flatnonzero(budget.bits)
        error[locked] = table.error[locked, budget.bits[locked] - 1]
    return float(layer_sums(table, worth, error).sum())
