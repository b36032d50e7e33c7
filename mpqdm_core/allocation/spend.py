"""Spend budgets on the steps that save most, by a histogram instead of a sort.

The Lagrangian answer for one budget is a threshold: take every step whose gain per weight lies above it. The
threshold is found without sorting millions of steps: floats are binned by their leading bits (a logarithmic
histogram), the bin in which the budget runs out is found per group, and only the steps of that bin are
sorted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OCTAVES = 32
"""Powers of two below a group's largest gain that bins tell apart; smaller gains share the last bin."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Steps:
    """Steps of channels from width to width, in groups that each have a budget.

    Attributes:
        gains: (A - 1, F) float32, error saved per bit and weight; never rising along the first axis.
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
        margin: positions of live channels with a step near the threshold, rising; those left over can be
            tried with what is left.
    """

    levels: NDArray[np.int64]
    left: NDArray[np.float64]
    margin: NDArray[np.int64]


def spend(steps: Steps, budget: NDArray[np.float64]) -> Spent:
    """Take steps by falling gain while they fit the budget (G,) of their group, in bits times weights."""
    bins, count = _bins(steps)
    sizes = np.diff(steps.group_start)
    groups = len(sizes)
    histogram = np.zeros(groups * count)
    for index, _, cost in _rows(steps, bins, count):
        histogram += np.bincount(index, weights=cost, minlength=groups * count)
    rising = histogram.reshape(groups, count)[:, ::-1].cumsum(axis=1)  # (G, bins) from the largest gains down
    fitting = (rising <= budget[:, None]).sum(axis=1)  # whole bins that fit
    spent = np.where(fitting > 0, rising[np.arange(groups), fitting - 1], 0.0)
    # The bin in which the budget runs out; -1 if it does not, and always for channels that are never taken.
    edge = np.repeat((count - 1 - fitting).astype(np.int32), sizes)
    levels = np.zeros(len(edge), dtype=np.int8)
    for row in bins:
        levels += row > edge
    levels[~steps.live] = 0
    at_edge = [np.flatnonzero((row == edge) & steps.live) for row in bins]
    channel = np.concatenate(at_edge)
    step = np.repeat(np.arange(len(bins)), [len(found) for found in at_edge])
    near = np.zeros(len(levels), dtype=np.bool_)
    near[channel] = True
    taken, cost_taken = _spend_sorted(steps, step, channel, budget - spent)
    after = levels.astype(np.int64) + np.bincount(channel[taken], minlength=len(levels))
    return Spent(levels=after, left=budget - spent - cost_taken, margin=np.flatnonzero(near))


def saving_curves(steps: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each group can spend and what it then saves, steps taken by falling gain, bin by bin.

    Returns:
        cost in bits times weights, and error saved, both (G, bins + 1), beginning with 0. Straight lines
        between the points lie below the true curve by less than a sixteenth of what their bin saves.
    """
    bins, count = _bins(steps)
    groups = len(steps.group_start) - 1
    cost = np.zeros(groups * count)
    saved = np.zeros(groups * count)
    for index, gain, price in _rows(steps, bins, count):
        cost += np.bincount(index, weights=price, minlength=groups * count)
        saved += np.bincount(index, weights=price * gain, minlength=groups * count)
    both = np.stack([cost, saved]).reshape(2, groups, count)[:, :, ::-1].cumsum(axis=2)
    both = np.concatenate([np.zeros((2, groups, 1)), both], axis=2)
    return both[0], both[1]


def _rows(
    steps: Steps, bins: NDArray[np.int32], count: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]]:
    """For each step: (F,) place in the histogram of all groups, gain, and cost in bits times weights."""
    sizes = np.diff(steps.group_start)
    offset = np.repeat(np.arange(len(sizes), dtype=np.int64) * count, sizes)
    price = np.where(steps.live, steps.weights, 0).astype(np.float64)  # of one bit
    for row, gain, gap in zip(bins, steps.gains, steps.gaps, strict=True):
        yield offset + row, gain, price * gap


def _bins(steps: Steps) -> tuple[NDArray[np.int32], int]:
    """Logarithmic bin of every gain and the number of bins; 0 for the smallest and what saves nothing."""
    sizes = np.diff(steps.group_start)
    mantissa = 4 if len(sizes) > 1 else 11  # bits: fine bins for one group, small histograms for many
    count = OCTAVES << mantissa
    key = steps.gains.view(np.int32) >> np.int32(23 - mantissa)  # rises with the float where it is positive
    top = np.maximum.reduceat(key[0], steps.group_start[:-1])  # (G,) first steps are the largest
    key -= np.repeat(np.maximum(top - np.int32(count - 1), np.int32(0)), sizes)
    return np.maximum(key, np.int32(0), out=key), count


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
    cost_taken = np.zeros(len(budget))
    np.add.at(cost_taken, group, cost * fits)
    taken: NDArray[np.int64] = order[np.repeat(fits, np.diff(np.append(head, len(step))))]
    return taken, cost_taken
