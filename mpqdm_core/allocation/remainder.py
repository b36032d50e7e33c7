"""Spend what is left: single jumps that fit where the next step of the hull does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 64
"""One jump a round and group; after that what is left is worth less than the time."""


def spend_remainder(
    curve: NDArray[np.float32],
    widths: NDArray[np.int64],
    weights: NDArray[np.int64],
    group_of: NDArray[np.int64],
    levels: NDArray[np.int64],
    left: NDArray[np.float64],
    *,
    force: bool,
) -> None:
    """Give each group the jump that saves most and fits, again and again; changes `levels` and `left`.

    Taking the largest saving first makes the result no worse than any plan that differs from the hull's in
    one channel, the uniform one among them.

    Args:
        curve: (A, M) error of M channels, sorted by group.
        widths: (A,) rising.
        weights: (M,).
        group_of: (M,).
        levels: (M,) index into widths, changed in place.
        left: (G,) bits times weights, changed in place.
        force: when nothing saves error any more, take the jump that costs least error: the budget is to be
            met.
    """
    columns = np.arange(curve.shape[1])
    for _ in range(ROUNDS):
        cost = weights * (widths[:, None] - widths[levels])  # (A, M)
        fits = (cost > 0) & (cost <= left[group_of])
        if not fits.any():
            return
        saved = np.where(fits, curve[levels, columns] - curve, np.float32(-np.inf))  # (A, M)
        target = saved.argmax(axis=0)
        best = saved[target, columns]  # (M,)
        if not force:
            best = np.where(best > 0, best, np.float32(-np.inf))
        order = np.lexsort((columns, -best, group_of))
        winners = order[np.concatenate([[True], np.diff(group_of[order]) != 0])]  # one a group
        winners = winners[np.isfinite(best[winners])]
        if not len(winners):
            return
        left[group_of[winners]] -= cost[target[winners], winners]
        levels[winners] = target[winners]
