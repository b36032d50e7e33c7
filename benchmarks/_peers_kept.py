"""Finished rows of the peers benchmark, so that the command can be repeated until all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._peers_table import Row


class KeptRows:
    """One file; rows of another model, scale or version of a peer do not count."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Start with what the file holds about the same thing."""
        self._path, self._about = path, json.loads(json.dumps(about))
        self._rows: dict[str, list[dict[str, Any]]] = {}
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["about"] == self._about:
                self._rows = content["rows"]

    def get(self, peer: str, bits: int) -> list[Row] | None:
        """The peer's row and ours at its bits, or None where they are missing."""
        rows = self._rows.get(f"{peer}-{bits}")
        return None if rows is None else [Row(**row) for row in rows]

    def put(self, peer: str, bits: int, rows: Sequence[Row]) -> None:
        """Keep a pair of rows."""
        self._rows[f"{peer}-{bits}"] = [row.as_dict() for row in rows]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".part")
        partial.write_text(json.dumps({"about": self._about, "rows": self._rows}), encoding="utf-8")
        os.replace(partial, self._path)
