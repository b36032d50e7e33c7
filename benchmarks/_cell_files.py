"""Measured cells as one file of results: a line for each, with every figure.

The file is what is published, and what a later run takes its finished cells from: their figures are not
measured again on another machine, unless model, scale, setting or recipe are no longer what they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

NESTED = "."  # between the name of a group of figures and the name of one of them


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change with anything in `parts`, which are written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_cells(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A line for each cell, with every figure."""
    pd.json_normalize([dict(entry) for entry in measured], sep=NESTED).to_csv(path, index=False)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """What `write_cells` wrote, without the figures a cell does not have; nothing where there is no file."""
    if not path.exists():
        return []
    cells = []
    for line in pd.read_csv(path, dtype={"made_of": str}).to_dict("records"):
        cell: dict[str, Any] = {}
        for column, value in line.items():
            group, _, name = str(column).rpartition(NESTED)
            if not pd.isna(value):
                (cell.setdefault(group, {}) if group else cell)[name] = value
        cells.append(cell)
    return cells
