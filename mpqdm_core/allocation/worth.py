"""What a channel's error counts, and which channels are worth nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.errors import SettingsError

DEAD_ENERGY = 1e-12
"""Output energy below this share of the table's largest counts as none: float32 noise of a dead channel."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Worth:
    """Weights of the channels' errors.

    Attributes:
        weight: (C,) float64, at least 0; 0 where the channel is worth nothing.
        live: (C,) bool, False where the channel is worth nothing.
        notes: a sentence for each reason why channels are worth nothing.
    """

    weight: NDArray[np.float64]
    live: NDArray[np.bool_]
    notes: tuple[str, ...]


def priced(table: ErrorTable, weighting: str) -> tuple[ErrorTable, Worth]:
    """The table with errors as the weighting counts them, and the factor on each channel's error.

    With `sensitivity`, and where the effects of layers were measured, the errors of a layer are multiplied
    by one number a width, so that weighted and summed over the layer they are what rounding it was measured
    to do; at larger widths than were measured, by that of the largest.

    Raises:
        SettingsError: the weighting needs sensitivities the table does not have.
    """
    worth = weigh(table, weighting)
    if weighting != "sensitivity" or table.layer_effect is None:
        return table, worth
    channels = np.diff(table.layer_start)
    error = np.empty_like(table.error)
    ratio = np.ones(len(channels))
    for place in range(len(BITS)):
        if place < table.layer_effect.shape[1]:
            measured = table.layer_effect[:, place].astype(np.float64)
            with np.errstate(all="ignore"):
                found = measured / layer_sums(table, worth, table.error[:, place])
            ratio = np.where(np.isfinite(found) & (found > 0), found, ratio)
        error[:, place] = table.error[:, place] * np.repeat(ratio, channels)
    return replace(table, error=error), worth


def weigh(table: ErrorTable, weighting: str) -> Worth:
    """The factor on each channel's error, by the chosen weighting.

    `none` counts errors as measured, `relative` divides by the channel's output energy and by the number of
    channels (so that the sum over channels is a mean), `sensitivity` multiplies by the measured sensitivity.

    Raises:
        SettingsError: the weighting needs sensitivities the table does not have.
    """
    if weighting == "sensitivity" and table.sensitivity is None:
        raise SettingsError(
            "weighting 'sensitivity' needs the table's sensitivity, which was not measured: run "
            "mpqdm_core.sensitivity.channel_sensitivity on the full-precision model and store the result in "
            "the table, or choose 'none' or 'relative'"
        )
    if weighting == "relative":
        factor = _inverse_energy(table)
    elif weighting == "sensitivity" and table.sensitivity is not None:
        factor = table.sensitivity.astype(np.float64)
    else:
        factor = np.ones(table.channels)
    with np.errstate(all="ignore"):
        row_sum = table.error @ np.ones(len(BITS), dtype=np.float32)  # (C,); one NaN or inf spoils its row
    measured = np.isfinite(row_sum)
    erring = measured & (row_sum > 0)
    counted = np.isfinite(factor) & (factor > 0)
    live = erring & counted
    reasons = (
        (~measured, "no finite error"),
        (measured & ~erring, "no error at any bit-width"),
        (erring & ~counted, "no output energy" if weighting == "relative" else "no positive sensitivity"),
    )
    notes = tuple(
        f"{int(mask.sum())} of {table.channels} channels have {reason}: worth nothing, never given more bits"
        for mask, reason in reasons
        if mask.any()
    )
    return Worth(weight=np.where(live, factor, 0.0), live=live, notes=notes)


def _inverse_energy(table: ErrorTable) -> NDArray[np.float64]:
    energy = np.nan_to_num(table.energy.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    alive = energy > DEAD_ENERGY * energy.max()
    return np.where(alive, 1.0 / (np.where(alive, energy, 1.0) * table.channels), 0.0)


def chosen_error(table: ErrorTable, worth: Worth, bits: NDArray[np.int8]) -> NDArray[np.float64]:
    """(L,) weighted error of each layer at the given bits (C,); channels worth nothing add nothing."""
    by_width = table.error.T.ravel()  # no copy: the table keeps column after column
    error = by_width[(bits.astype(np.int64) - 1) * table.channels + np.arange(table.channels)]  # (C,)
    return layer_sums(table, worth, error)


def layer_sums(table: ErrorTable, worth: Worth, error: NDArray[np.float32]) -> NDArray[np.float64]:
    """(L,) sums of weight times error (C,) over the channels of each layer."""
    if not worth.live.all():
        error = np.where(worth.live, error, np.float32(0))
    return np.asarray(np.add.reduceat(worth.weight * error, table.layer_start[:-1]))
