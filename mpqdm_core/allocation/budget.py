"""From an average to bits that can be spent: locked layers, feasible range, and who shares one budget."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.settings import AllocationSettings
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import BudgetError, SettingsError

TOLERANCE = 1e-12
"""Share of a budget by which rounding may exceed it; without it 0.3 * 10 channels would be 2 channels."""

RANGE_TOLERANCE = 1e-9
"""Mean bits by which an average may miss the feasible range and still be taken for its end."""

WHOLE_MODEL = "whole model"
"""Name of the one group that shares a budget when the scope is the model."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Budget:
    """Channels to decide on, in groups that each meet the same average.

    Attributes:
        bits: (C,) int8, the locked bits, 0 where the channel is free.
        free: (F,) int64, the free channels in network order.
        weights: (F,) int64, weights of each free channel.
        group_start: (G + 1,) int64, group g is `free[group_start[g]:group_start[g + 1]]`.
        group_names: the layers, or `WHOLE_MODEL`.
        group_weights: (G,) int64, weights in each group.
        average: mean bits per weight every group has to meet; differs from the asked one where layers are
            locked.
        notes: what locks did to the average.
    """

    bits: NDArray[np.int8]
    free: NDArray[np.int64]
    weights: NDArray[np.int64]
    group_start: NDArray[np.int64]
    group_names: tuple[str, ...]
    group_weights: NDArray[np.int64]
    average: float
    notes: tuple[str, ...]

    @property
    def allowance(self) -> NDArray[np.float64]:
        """(G,) rounding allowed on sums of bits times weights."""
        return np.asarray(1e-6 + TOLERANCE * self.group_weights, dtype=np.float64)


def feasible_range(table: ErrorTable, settings: AllocationSettings) -> tuple[float, float]:
    """The lowest and the highest mean bits per weight that locks and allowed bits leave open.

    Raises:
        SettingsError: a locked layer is not in the table.
    """
    locked_weights, locked_bits = _locked_sums(table, settings)
    total = int((table.weights_per_channel * np.diff(table.layer_start)).sum())
    free = total - locked_weights
    low, high = settings.allowed_bits[0], settings.allowed_bits[-1]
    return (locked_bits + free * low) / total, (locked_bits + free * high) / total


def split_budget(table: ErrorTable, settings: AllocationSettings) -> Budget:
    """Take the locked layers out of the budget and group the free channels by scope.

    Locked layers count inside the budget: what they take above the average, the free layers give back, each
    layer by the same mean bits.

    Raises:
        SettingsError: a locked layer is not in the table.
        BudgetError: the average is outside the feasible range.
    """
    low, high = feasible_range(table, settings)
    average = settings.average_bits
    if not low - RANGE_TOLERANCE <= average <= high + RANGE_TOLERANCE:
        raise BudgetError(_refusal(settings, low, high), minimum=low, maximum=high)
    channels = np.diff(table.layer_start)  # (L,)
    layer_weights = table.weights_per_channel * channels  # (L,)
    lock = np.array([settings.locked.get(name, 0) for name in table.layer_names], dtype=np.int8)
    is_free = lock == 0
    free_weights = int(layer_weights[is_free].sum())
    locked_weights, locked_bits = _locked_sums(table, settings)
    notes: list[str] = []
    shared = average
    if locked_weights and free_weights:
        shared = (average * (free_weights + locked_weights) - locked_bits) / free_weights
        shared = min(max(shared, settings.allowed_bits[0]), settings.allowed_bits[-1])
        part = locked_weights / (free_weights + locked_weights)
        notes.append(
            f"locked layers ({len(settings.locked)}) hold {part:.1%} of the weights at "
            f"{locked_bits / locked_weights:.2f} bits; the others have {shared:.3f} bits per weight"
        )
    elif locked_weights:
        notes.append("every layer is locked: the policy decides nothing")
    names = tuple(name for name, free in zip(table.layer_names, is_free, strict=True) if free)
    group_channels, group_weights = channels[is_free], layer_weights[is_free]
    if settings.scope == "model" and names:
        names = (WHOLE_MODEL,)
        group_channels, group_weights = group_channels.sum(keepdims=True), group_weights.sum(keepdims=True)
    return Budget(
        bits=np.repeat(lock, channels),
        free=np.flatnonzero(np.repeat(is_free, channels)),
        weights=np.repeat(table.weights_per_channel[is_free], channels[is_free]),
        average=shared,
        notes=tuple(notes),
        group_start=np.concatenate([[0], np.cumsum(group_channels)]).astype(np.int64),
        group_names=names,
        group_weights=group_weights,
    )


def _locked_sums(table: ErrorTable, settings: AllocationSettings) -> tuple[int, int]:
    """Weights in locked layers, and the bits they take."""
    index = {name: position for position, name in enumerate(table.layer_names)}
    weights = bits = 0
    for name, width in settings.locked.items():
        if name not in index:
            near = difflib.get_close_matches(name, table.layer_names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"layer {name!r} cannot be locked, the error table does not have it{hint}")
        layer = index[name]
        size = int(
            table.weights_per_channel[layer] * (table.layer_start[layer + 1] - table.layer_start[layer])
        )
        weights += size
        bits += size * width
    return weights, bits


def _refusal(settings: AllocationSettings, low: float, high: float) -> str:
    allowed = ", ".join(map(str, settings.allowed_bits))
    locks = f" and {len(settings.locked)} of the layers locked" if settings.locked else ""
    return (
        f"an average of {settings.average_bits:g} bits is not feasible: with {allowed} bits allowed{locks}, "
        f"the mean can be {low:.3f} to {high:.3f} bits per weight"
    )
