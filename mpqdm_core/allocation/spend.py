"""Spend budgets on the steps that save most, by a histogram instead of a sort.

The Lagrangian answer for one budget is a threshold: take every step whose gain per weight lies above it. The
threshold is found without sorting millions of steps: floats are binned by their leading bits (a logarithmic
histogram), the bin in which the budget runs out is found per group, and only the steps of that bin are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OCTAVES = 32
"""Powers of two below a group's largest gain that bins tell apart; smaller gains share the last bin."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Steps:
    """Steps of channels from width to width, in groups that each have a budget.

    Attributes:
        gains: (A - 1, F) float32, error saved per bit, or per bit and weight where weights differ in a group;
            never rising along the first axis.
        gaps: (A - 1,) int64, bits of each step.
        weights: (F,) int64.
        live: (F,) bool; steps of other channels are never taken.
        group_start: (G + 1,) int64.
        group_of: (F,) int64.
    """

    gains: NDArray[np.float32]
    gaps: NDArray[np.int64]
    weights: NDArray[np.int64]
    live: NDArray[np.bool_]
    group_start: NDArray[np.int64]
    group_of: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Spent:
    """Where a budget ends.

    Attributes:
        levels: (F,) int64, steps taken by each channel.
        left: (G,) float64, bits times weights not spent: less than the group's next step costs.
        margin: positions of live channels with a step near the threshold, rising; those left over can be tried
            with what is left.
    """

    levels: NDArray[np.int64]
    left: NDArray[np.float64]
    margin: NDArray[np.int64]


def spend(steps: Steps, budget: NDArray[np.float64]) -> Spent:
    """Take steps by falling gain while they fit the budget (G,) of their group, in bits times weights."""
    groups = len(steps.group_start) - 1
    bins, count = _bins(steps, groups)
    cost = steps.gaps[:, None] * np.where(steps.live, steps.weights, 0)  # (A - 1, F)
    index = bins + steps.group_of * count
    histogram = np.bincount(index.ravel(), weights=cost.ravel(), minlength=groups * count)
    rising = histogram.reshape(groups, count)[:, ::-1].cumsum(axis=1)  # (G, bins) from the largest gains down
    fitting = (rising <= budget[:, None]).sum(axis=1)  # whole bins that fit
    spent = np.where(fitting > 0, rising[np.arange(groups), fitting - 1], 0.0)
    edge = count - 1 - fitting  # (G,) the bin in which the budget runs out; -1 if it does not
    edge_of = edge[steps.group_of]
    levels = (bins > edge_of).sum(axis=0)
    step, channel = np.nonzero((bins == edge_of) & steps.live)
    taken, cost_taken = _spend_sorted(steps, step, channel, budget - spent)
    levels += np.bincount(channel[taken], minlength=len(levels))
    levels[~steps.live] = 0
    return Spent(levels=levels, left=budget - spent - cost_taken, margin=np.unique(channel))


def _bins(steps: Steps, groups: int) -> tuple[NDArray[np.int64], int]:
    """Logarithmic bin of every gain, 0 for the smallest and for all that save nothing; and the number of bins."""
    mantissa = 5 if groups > 1 else 11  # bins per octave: fine for one group, small tables for many
    count = OCTAVES << mantissa
    key = steps.gains.view(np.int32) >> np.int32(23 - mantissa)  # rises with the float where it is positive
    top = np.maximum.reduceat(key[0], steps.group_start[:-1])  # (G,) first steps are the largest
    lowest = np.maximum(top - (count - 1), 0)
    return np.maximum(key - lowest[steps.group_of], 0).astype(np.int64), count


def _spend_sorted(
    steps: Steps, step: NDArray[np.int64], channel: NDArray[np.int64], budget: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Among some steps take the best of each group that fit: which of them, and what they cost (G,)."""
    if not len(step):
        return np.empty(0, dtype=np.int64), np.zeros(len(budget))
    gain = steps.gains[step, channel]
    order = np.lexsort((step, channel, -gain, steps.group_of[channel]))
    step, channel, gain = step[order], channel[order], gain[order]
    # Steps of one channel with the same gain are one step of the hull: together or not at all.
    opens = np.concatenate([[True], (np.diff(channel) != 0) | (gain[1:] != gain[:-1])])
    head = np.flatnonzero(opens)
    cost = np.add.reduceat(steps.gaps[step] * steps.weights[channel], head)
    group = steps.group_of[channel[head]]
    first = np.searchsorted(group, np.arange(len(budget)))
    running = np.concatenate([[0], np.cumsum(cost)])
    fits = running[1:] - running[first[group]] <= budget[group]
    cost_taken = np.bincount(group, weights=cost * fits, minlength=len(budget))
    return order[np.repeat(fits, np.diff(np.append(head, len(step))))], cost_taken
