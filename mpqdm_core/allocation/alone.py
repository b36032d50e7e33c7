"""How sensitive each layer is by itself: rounded alone while all others stay as they were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.worth import chosen_error, priced
from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.errors import SettingsError


def errors_alone(table: ErrorTable, weighting: str, bits: int) -> NDArray[np.float64]:
    """The predicted error of rounding one layer and no other, layer by layer.

    Args:
        table: what each channel's rounding costs.
        weighting: how errors are weighed, as in `AllocationSettings`.
        bits: of every channel of the layer.

    Returns:
        (L,) in network order. Errors of layers add up, so what a plan would lose less if a layer were left in
        full precision is the layer's own share of the plan's error.

    Raises:
        SettingsError: no such width, or the weighting needs a sensitivity that was not measured.
    """
    if bits not in BITS:
        raise SettingsError(f"bits must be one of {BITS[0]} to {BITS[-1]}, got {bits!r}")
    every = np.full(table.channels, bits, dtype=np.int8)
    return chosen_error(*priced(table, weighting), every)
