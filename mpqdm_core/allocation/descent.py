"""Policies that follow the error table: `optimal` over all allowed widths, `gain` over three.

Both start with every channel at the lowest width and buy the steps that save the most error per bit and
weight, which is the Lagrangian answer on the lower convex hull, and spend the remainder greedily. `gain` may
use only the allowed width nearest to the average and its neighbours: at an average that is an allowed width
this is the best exchange, channel against channel, of one bit up for one bit down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.budget import Budget
from mpqdm_core.allocation.hull import convex_gains
from mpqdm_core.allocation.ranked import Ladder
from mpqdm_core.allocation.remainder import spend_remainder
from mpqdm_core.allocation.settings import AllocationSettings
from mpqdm_core.allocation.spend import Steps, spend
from mpqdm_core.allocation.worth import Worth
from mpqdm_core.error_table import ErrorTable


def allocate_by_error(
    table: ErrorTable, worth: Worth, budget: Budget, settings: AllocationSettings
) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Bits of the free channels (F,) int8, and notes.

    Channels worth nothing stay at the lowest width; with `gain`, where nobody takes what they could give,
    they stay at the width nearest to the average instead.
    """
    exchange = settings.policy == "gain"
    widths = usable_widths(budget, settings)
    curve = weighted_curve(table, worth, budget.free, widths)
    steps = make_steps(curve, widths, worth, budget)
    money = (budget.average - widths[0]) * budget.group_weights + budget.allowance
    if len(widths) == 1:
        return np.full(len(budget.free), widths[0], dtype=np.int8), ()
    found = spend(steps, money)
    levels, left = found.levels, found.left
    if len(found.margin):
        some = found.margin
        spend_here = levels[some]
        spend_remainder(
            curve[:, some],
            widths,
            budget.weights[some],
            steps.group_of[some],
            spend_here,
            left,
            force=exchange,
        )
        levels[some] = spend_here
    if exchange and not steps.live.all():
        _leave_at_base(budget, settings, widths, steps, levels, left)
    notes = _unspent(budget, left) if not steps.live.all() else ()
    return widths[levels].astype(np.int8), notes


def usable_widths(budget: Budget, settings: AllocationSettings) -> NDArray[np.int64]:
    """(A,) rising: all allowed widths, or for `gain` the one nearest to the average and its neighbours."""
    if settings.policy == "gain":
        ladder = Ladder.around(budget.average, settings.allowed_bits)
        pair = ladder.swap
        low = ladder.below if pair is None else ladder.base - pair
        high = ladder.above if pair is None else ladder.base + pair
        if budget.average > ladder.base:  # the next width up has to be there to meet the average
            high = max(high or 0, ladder.above or 0)
        near = {ladder.base, low, high}
        return np.array(sorted(width for width in near if width is not None), dtype=np.int64)
    return np.array(settings.allowed_bits, dtype=np.int64)


def weighted_curve(
    table: ErrorTable, worth: Worth, free: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(A, F) float32 error times weight, weights scaled to at most 1; 0 where a channel is worth nothing."""
    weight = worth.weight / max(float(worth.weight.max()), np.finfo(np.float64).tiny)  # (C,)
    everything = len(free) == table.channels
    scale = (weight if everything else weight[free]).astype(np.float32)
    curve = np.empty((len(widths), len(free)), dtype=np.float32)
    dead = ~(worth.live if everything else worth.live[free])
    spoiled = bool(dead.any())
    for row, width in zip(curve, widths, strict=True):
        column = table.error[:, width - 1]
        np.multiply(column if everything else column[free], scale, out=row, where=~dead if spoiled else True)
        if spoiled:
            row[dead] = 0
    return curve


def make_steps(curve: NDArray[np.float32], widths: NDArray[np.int64], worth: Worth, budget: Budget) -> Steps:
    """Steps of the hull, their gains per bit and weight."""
    gains = convex_gains(curve, widths)
    gains /= budget.weights.astype(np.float32)
    return Steps(
        gains=gains,
        gaps=np.diff(widths),
        weights=budget.weights,
        live=worth.live[budget.free],
        group_start=budget.group_start,
        group_of=np.repeat(np.arange(len(budget.group_names)), np.diff(budget.group_start)),
    )


def _leave_at_base(
    budget: Budget,
    settings: AllocationSettings,
    widths: NDArray[np.int64],
    steps: Steps,
    levels: NDArray[np.int64],
    left: NDArray[np.float64],
) -> None:
    """Take back what channels worth nothing gave and nobody took, in network order; never above the base."""
    base = Ladder.around(budget.average, settings.allowed_bits).base
    level = int(np.searchsorted(widths, base))
    idle = np.flatnonzero(~steps.live)
    cost = budget.weights[idle] * (widths[level] - widths[0])
    group = steps.group_of[idle]
    first = np.searchsorted(group, np.arange(len(left)))
    running = np.concatenate([[0], np.cumsum(cost)])
    fits = running[1:] - running[first[group]] <= left[group]
    levels[idle[fits]] = level
    left -= np.bincount(group, weights=cost * fits, minlength=len(left))


def _unspent(budget: Budget, left: NDArray[np.float64]) -> tuple[str, ...]:
    largest = np.maximum.reduceat(budget.weights, budget.group_start[:-1])
    idle = left >= largest
    if not idle.any():
        return ()
    share = float(left[idle].sum() / budget.group_weights.sum())
    return (f"{share:.3f} bits per weight were not spent: the channels left are worth nothing",)
