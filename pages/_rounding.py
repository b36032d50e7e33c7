"""What prices depend on beside the layer: activation bits, grid, range search and pre-scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpqdm_core.errors import SettingsError
from mpqdm_core.quant_settings import QuantSettings

GRIDS = {"mid-rise": "mid-rise grid", "affine": "affine grid"}
RANGES = {2.4: "range search with power 2.4", 2.0: "range search with plain MSE"}
PRESCALE_ALPHA = QuantSettings().prescale_alpha


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How weights and inputs are rounded; an error table holds for one such choice only."""

    activation_bits: int | None = 8
    grid: str = "mid-rise"
    range_exponent: float = 2.4
    prescale: bool = True

    def __post_init__(self) -> None:
        """Refuse what no widget offers.

        Raises:
            SettingsError: an unknown grid or range search.
        """
        if self.grid not in GRIDS:
            raise SettingsError(f"the grid must be one of {', '.join(GRIDS)}, got {self.grid!r}")
        if self.range_exponent not in RANGES:
            known = " or ".join(f"{power:g}" for power in RANGES)
            raise SettingsError(f"the power of the range search must be {known}, got {self.range_exponent!r}")

    @property
    def words(self) -> str:
        """Grid, range search and pre-scaling in words."""
        scaling = "pre-scaling" if self.prescale else "no pre-scaling"
        return f"{GRIDS[self.grid]}, {RANGES[self.range_exponent]}, {scaling}"

    @property
    def inputs(self) -> str:
        """The activation bits in words."""
        return "full precision" if self.activation_bits is None else f"{self.activation_bits} bits"

    def holds_for(self, settings: Mapping[str, Any]) -> bool:
        """Whether a table with these settings was measured like this; what it does not say counts as so."""
        scaled = settings.get("prescale_alpha", PRESCALE_ALPHA if self.prescale else None) is not None
        return (
            settings.get("grid", self.grid) == self.grid
            and settings.get("range_exponent", self.range_exponent) == self.range_exponent
            and scaled == self.prescale
        )
