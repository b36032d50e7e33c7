"""Settings of the rounding itself: shared by the error table, the quantizer and the account of bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpqdm_core.errors import SettingsError
from mpqdm_core.grids import MAX_BITS, MIN_BITS, GridChoice, grid_of

EXEMPT_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantSettings:
    """How values are rounded; how many bits each channel gets is the plan's business."""

    activation_bits: int | None = 8  # of every quantizable layer's input; None: full precision
    grid: GridChoice = "mid-rise"  # of weights; activations are always affine
    range_exponent: float = (
        2.4  # power of the distance the range searches minimise, as MPQ-DM's code; 2.0: plain MSE
    )
    prescale_alpha: float | None = (
        0.5  # share of the inputs' outliers moved into weights; None: no pre-scaling
    )
    exempt_bits: int | None = (
        EXEMPT_BITS  # of the layers exempt at 8 bits, weights and inputs; None: full precision
    )

    def __post_init__(self) -> None:
        """Refuse what no quantizer can do.

        Raises:
            SettingsError: a value is outside its range.
        """
        if self.activation_bits is not None and not MIN_BITS <= self.activation_bits <= MAX_BITS:
            raise SettingsError(
                f"activation_bits must be in {MIN_BITS}..{MAX_BITS}, or None for full precision, "
                f"got {self.activation_bits!r}"
            )
        if self.exempt_bits not in (EXEMPT_BITS, None):
            raise SettingsError(f"exempt_bits must be {EXEMPT_BITS} or None, got {self.exempt_bits!r}")
        if not 0.0 < self.range_exponent <= 10.0:
            raise SettingsError(f"range_exponent must be above 0 and at most 10, got {self.range_exponent!r}")
        if self.prescale_alpha is not None and not 0.0 <= self.prescale_alpha <= 1.0:
            raise SettingsError(f"prescale_alpha must be in [0, 1] or None, got {self.prescale_alpha!r}")
        if isinstance(self.grid, Mapping) and not set(self.grid) <= set(range(MIN_BITS, MAX_BITS + 1)):
            raise SettingsError(
                f"a grid by bit-width takes bits {MIN_BITS}..{MAX_BITS}, got {sorted(self.grid)}"
            )
        for bits in range(MIN_BITS, MAX_BITS + 1):
            grid_of(self.grid, bits)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantSettings:
        """Read what `as_dict` returned.

        Raises:
            SettingsError: a value is not allowed.
        """
        settings = dict(values)
        grid = settings.get("grid")
        if isinstance(grid, str) and ":" in grid:
            settings["grid"] = {int(b): g for b, g in (pair.split(":") for pair in grid.split(","))}
        return cls(**settings)

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Return JSON scalars, the grid as one word or as `1:mid-rise,2:affine,...`."""
        grid = (
            self.grid
            if isinstance(self.grid, str)
            else ",".join(f"{b}:{g}" for b, g in sorted(self.grid.items()))
        )
        return {
            "activation_bits": self.activation_bits,
            "grid": grid,
            "range_exponent": self.range_exponent,
            "prescale_alpha": self.prescale_alpha,
            "exempt_bits": self.exempt_bits,
        }
