"""Policies that rank channels: uniform, the paper's kurtosis swap, and its random and head-tail ablations.

All give three to five runs of bits along the ranking, from the top: `base + swap` for the groups moved up,
the next allowed width for what the budget leaves above `base`, `base`, the next lower width, and `base -
swap` for the groups moved down. `base` is the allowed width nearest to the average (the lower one of two),
`swap` the smallest distance at which both neighbours of `base` are allowed, so that a swap never changes the
mean. At an average that is itself an allowed width only `base` and the swap remain: the paper's rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.budget import WHOLE_MODEL, Budget
from mpqdm_core.allocation.settings import SWAP_POLICIES, AllocationSettings
from mpqdm_core.allocation.worth import Worth
from mpqdm_core.error_table import ErrorTable

GOLDEN = 2654435769
"""2**32 over the golden ratio. Multiples of it modulo 2**32 spread evenly however many are taken: a larger
budget keeps the channels that a smaller one chose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """The widths around an average; None where there is no such width."""

    base: int
    above: int | None
    below: int | None
    swap: int | None

    @classmethod
    def around(cls, average: float, allowed: tuple[int, ...]) -> Ladder:
        """Find the widths for an average within the allowed ones."""
        base = min(allowed, key=lambda width: (abs(width - average), width))
        distances = [width - base for width in allowed if width > base and 2 * base - width in allowed]
        return cls(
            base=base,
            above=min((width for width in allowed if width > base), default=None),
            below=max((width for width in allowed if width < base), default=None),
            swap=min(distances, default=None),
        )


def allocate_ranked(
    table: ErrorTable, worth: Worth, budget: Budget, settings: AllocationSettings
) -> tuple[NDArray[np.int8], NDArray[np.float64], tuple[str, ...]]:
    """Bits by rank, the number of groups chosen by the table's error.

    Returns:
        bits of the free channels (F,) int8; the search curve (G, groups + 1) float64, the weighted error of
        each budget group at g = 0..groups, NaN where g is not possible; notes.
    """
    ladder = Ladder.around(budget.average, settings.allowed_bits)
    order, ranked = _ranking(table, worth, budget, settings)
    swapping = settings.policy in SWAP_POLICIES
    groups = np.arange((settings.max_groups if swapping else 0) + 1)
    sizes = np.floor(
        np.diff(budget.group_start) * settings.group_fraction + 1e-9
    )  # (G,) channels, the paper's k
    bounds = _bounds(budget, settings, ladder, budget.weights[order], groups, sizes)  # (6, G, groups + 1)
    widths = _widths(ladder)
    curve = _errors(table, worth, budget.free[order], bounds, widths)  # (G, groups + 1)
    rewarding = bounds[1] - bounds[0] <= ranked[:, None]  # groups of channels that have a rank
    swappable = (sizes[:, None] > 0) & (ladder.swap is not None) & rewarding
    possible = (bounds[2] <= bounds[3]) & ((groups == 0) | swappable)
    curve = np.where(possible, curve, np.nan)
    best = np.nanargmin(curve, axis=1)  # the first of equals: no swap without a gain
    runs = np.diff(bounds[:, np.arange(len(best)), best], axis=0).T  # (G, 5) channels in each run
    bits = np.empty(len(order), dtype=np.int8)
    bits[order] = np.repeat(np.tile(np.array(widths, dtype=np.int8), len(runs)), runs.ravel())
    return bits, curve, _notes(budget, settings, ladder, sizes) if swapping else ()


def _widths(ladder: Ladder) -> tuple[int, int, int, int, int]:
    """Bits of the five runs; a run that cannot be used is empty and shows the base."""
    base, swap = ladder.base, ladder.swap or 0
    return base + swap, ladder.above or base, base, ladder.below or base, base - swap


def _ranking(
    table: ErrorTable, worth: Worth, budget: Budget, settings: AllocationSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank the free channels by score within their group.

    Returns:
        positions (F,) in budget.free by group and falling score, equals by index, channels that are worth
        nothing or have no score last; how many channels of each group have a rank (G,).
    """
    if settings.policy == "kurtosis":
        score: NDArray[np.float32] = table.kurtosis[budget.free]
    elif settings.policy == "random":
        # Drawn for all channels, so that locking one layer does not shuffle the others.
        score = np.random.default_rng(settings.seed).random(table.channels, dtype=np.float32)[budget.free]
    elif settings.policy == "head-tail":
        score = -np.arange(
            len(budget.free), dtype=np.float32
        )  # equal scores of huge tables still fall by index
    else:
        score = (budget.free.astype(np.uint32) * np.uint32(GOLDEN)).astype(np.float32)
    ranked = worth.live[budget.free] & np.isfinite(score)
    before = np.concatenate([[0], np.cumsum(ranked)])
    order = group_order(np.where(ranked, score, np.float32(-np.inf)), budget.group_start)
    return order, np.diff(before[budget.group_start])


def group_order(score: NDArray[np.float32], group_start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions (F,) sorted by group, then falling score, then position.

    Group, score and position are packed into one integer each: sorting plain integers is several times faster
    than an indirect sort, and ties cannot fall differently on another processor.
    """
    sizes = np.diff(group_start)
    position_bits = int(sizes.max(initial=1)).bit_length()
    if len(sizes).bit_length() + 32 + position_bits > 64:
        return np.lexsort((-score, np.repeat(np.arange(len(sizes)), sizes))).astype(np.int64)
    raw = (score + np.float32(0)).view(np.int32).astype(np.int64)  # + 0 turns -0.0 into 0.0
    rising = np.where(raw < 0, -(raw & 0x7FFFFFFF), raw)  # ordered as the floats are
    key = (np.int64(2**31) - rising).astype(np.uint64) << np.uint64(position_bits)
    group = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    position = np.arange(len(score), dtype=np.int64) - np.repeat(group_start[:-1], sizes)
    key += (group << np.uint64(32 + position_bits)) + position.astype(np.uint64)
    key.sort()
    found = (key & np.uint64(2**position_bits - 1)).astype(np.int64)
    return found + np.repeat(group_start[:-1], sizes)


def _bounds(
    budget: Budget,
    settings: AllocationSettings,
    ladder: Ladder,
    weights: NDArray[np.int64],
    groups: NDArray[np.int64],
    sizes: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Where the five runs begin and end along the ranking, (6, G, groups + 1).

    Runs are measured in weights, which in a layer is the same as in channels. What is given is rounded down
    to whole channels, what is taken is rounded up: the mean is never above the budget.
    """
    before = np.concatenate([[0], np.cumsum(weights)])  # (F + 1,) weights ahead of each channel
    slack = budget.allowance[:, None]
    counts = np.diff(budget.group_start)
    group_size = (sizes * budget.group_weights / counts)[:, None]  # (G, 1) weights; k * K in a layer
    start, stop = budget.group_start[:-1, None], budget.group_start[1:, None]
    first, last = before[start], before[stop]

    def given(origin: NDArray[np.int64], amount: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.searchsorted(before, before[origin] + amount + slack, side="right") - 1

    def taken(origin: NDArray[np.int64], amount: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.searchsorted(before, before[origin] - amount + slack, side="right") - 1

    swap = ladder.swap or 0
    up = given(start, (groups if swap else 0 * groups) * group_size)
    moved_up = before[up] - first
    down = taken(stop + 0 * up, moved_up.astype(np.float64))
    surplus = swap * (last - before[down] - moved_up)  # bits freed by rounding; 0 where weights are equal
    wanted = (budget.average - ladder.base) * budget.group_weights[:, None] + surplus
    extra = settings.extra_groups * group_size
    high, low = up, down
    if ladder.above is not None:
        high = given(up, np.maximum(wanted, 0.0) / (ladder.above - ladder.base) + extra)
    if ladder.below is not None:
        low = taken(down, np.maximum(-wanted, 0.0) / (ladder.base - ladder.below))
    if settings.extra_groups:
        high = np.minimum(high, np.where(up <= low, low, high))  # no more than there are
    high, low = np.broadcast_to(high, up.shape), np.broadcast_to(low, up.shape)
    return np.stack([np.broadcast_to(start, up.shape), up, high, low, down, np.broadcast_to(stop, up.shape)])


def _errors(
    table: ErrorTable,
    worth: Worth,
    ranked: NDArray[np.int64],
    bounds: NDArray[np.int64],
    widths: tuple[int, ...],
) -> NDArray[np.float64]:
    """Weighted error of every group at every g: differences of running sums along the ranking."""
    weight = worth.weight[ranked]
    live = worth.live[ranked]
    running: dict[int, NDArray[np.float64]] = {}
    total = np.zeros_like(bounds[0], dtype=np.float64)
    if total.shape[1] == 1:
        return total  # nothing to choose between
    for run, width in enumerate(widths):
        if (bounds[run + 1] == bounds[run]).all():
            continue
        if width not in running:
            error = weight * np.where(live, table.error[ranked, width - 1], np.float32(0))
            running[width] = np.concatenate([[0.0], np.cumsum(error)])
        total += running[width][bounds[run + 1]] - running[width][bounds[run]]
    return total


def _notes(
    budget: Budget, settings: AllocationSettings, ladder: Ladder, sizes: NDArray[np.float64]
) -> tuple[str, ...]:
    notes: list[str] = []
    small = [name for name, size in zip(budget.group_names, sizes, strict=True) if size == 0]
    if small:
        shown = ", ".join(small[:3]) + (" and others" if len(small) > 3 else "")
        notes.append(f"{len(small)} layers are too small for a group and are not mixable: {shown}")
    if ladder.swap is None:
        notes.append(
            f"no swap around {ladder.base} bits: no two allowed widths lie equally far above and below it"
        )
    if budget.group_names == (WHOLE_MODEL,):
        notes.append("channels are ranked over the whole model (ours; the paper ranks within each layer)")
    if settings.extra_groups and ladder.above is None:
        notes.append(f"no extra groups: there is no allowed width above {ladder.base}")
    elif settings.extra_groups:
        notes.append(
            f"MPQ-DM+ (our reading, its rule is not published): {settings.extra_groups} extra groups at "
            f"{ladder.above} bits that no group pays for, so the mean exceeds {settings.average_bits:g}"
        )
    return tuple(notes)
