"""Predicted error over a whole range of budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.allocate import decide, uniform_error
from mpqdm_core.allocation.budget import Budget, feasible_range, split_budget
from mpqdm_core.allocation.descent import make_steps, usable_widths, weighted_curve
from mpqdm_core.allocation.settings import AllocationSettings
from mpqdm_core.allocation.spend import saving_curves
from mpqdm_core.allocation.worth import Worth, chosen_error, priced
from mpqdm_core.error_table import ErrorTable


def frontier(
    table: ErrorTable, settings: AllocationSettings, averages: Sequence[float]
) -> NDArray[np.float64]:
    """Predicted error of the policy at each average; `settings.average_bits` does not matter.

    For `optimal` this is the lower convex hull of all plans, computed once for all averages; what `allocate`
    predicts differs by what one channel's step is worth in each layer (or in the model): in layers of some
    hundred channels by a few thousandths. `uniform` is interpolated between widths; the other policies are
    run at every average.

    Returns:
        (n,) float64 in the unit of `Allocation.predicted_error`; NaN where an average is not feasible.

    Raises:
        SettingsError: a locked layer is not in the table, or the table has no sensitivity and needs it.
    """
    table, worth = priced(table, settings.weighting)
    low, high = feasible_range(table, settings)
    found = np.full(len(averages), np.nan)
    feasible = [i for i, average in enumerate(averages) if low <= average <= high]
    if not feasible:
        return found
    budgets = [split_budget(table, replace(settings, average_bits=averages[i])) for i in feasible]
    if settings.policy == "optimal" and len(budgets[0].free) and len(settings.allowed_bits) > 1:
        found[feasible] = _hull(table, worth, budgets, settings)
        return found
    for i, budget in zip(feasible, budgets, strict=True):
        asked = replace(settings, average_bits=averages[i])
        if settings.policy == "uniform":
            found[i] = uniform_error(table, worth, budget, asked, averages[i])
        else:
            found[i] = chosen_error(table, worth, decide(table, worth, budget, asked)[0]).sum()
    return found


def _hull(
    table: ErrorTable, worth: Worth, budgets: list[Budget], settings: AllocationSettings
) -> NDArray[np.float64]:
    budget = budgets[0]  # groups are the same at every average
    widths = usable_widths(budget, settings)
    curve = weighted_curve(table, worth, budget.free, widths)
    cost, saved = saving_curves(make_steps(curve, widths, worth, budget))
    money = np.array([entry.average - widths[0] for entry in budgets])  # (n,) bits per weight
    saving = np.zeros(len(budgets))
    for group, weights in enumerate(budget.group_weights):
        saving += np.interp(money * weights, cost[group], saved[group])
    cheapest = budget.bits.copy()
    cheapest[budget.free] = widths[0]
    unit = float(worth.weight.max())  # the curve is in units of the largest weight
    return np.asarray(chosen_error(table, worth, cheapest).sum() - unit * saving)
