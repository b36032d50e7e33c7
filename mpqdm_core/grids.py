"""Names of level grids and the bit-widths they exist for, without tensors: settings need no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from mpqdm_core.errors import SettingsError

Grid = Literal["affine", "mid-rise"]

GRIDS: tuple[Grid, ...] = get_args(Grid)
MIN_BITS, MAX_BITS = 1, 8

GridChoice = Grid | Mapping[int, Grid]
"""One grid for every bit-width, or a grid for some bit-widths (the others are affine)."""


def check_grid(grid: str) -> None:
    """Raise SettingsError unless `grid` names one of GRIDS."""
    if grid not in GRIDS:
        raise SettingsError(f"grid must be one of {', '.join(GRIDS)}; got {grid!r}")


def grid_of(grid: GridChoice, bits: int) -> Grid:
    """Return the grid of a bit-width.

    Raises:
        SettingsError: the grid has no such name.
    """
    chosen: Grid = grid if isinstance(grid, str) else grid.get(bits, "affine")
    check_grid(chosen)
    return chosen
