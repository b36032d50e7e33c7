"""Honest sizes: three numbers that are never mixed, nominal, effective and on disk."""

from __future__ import annotations

from typing import Any

from pages._html import Card
from pages._workspace import Workspace

MIB = 2.0**20


def size_cards(work: Workspace, plan: Any) -> list[Card]:
    """Cards about bits and size of a plan; fewer where the layers of the model are not known."""
    report = bit_report(work, plan)
    if report is None:
        return []
    return [
        Card(name="Effective bits", value=f"{report.effective:.2f}", note="scales, zero points and exempt layers counted"),
        Card(name="Estimated size", value=f"{report.bytes_on_disk / MIB:.2f} MiB", note=f"float32: {report.bytes_full / MIB:.2f} MiB"),
    ]  # fmt: skip


def bit_report(work: Workspace, plan: Any) -> Any | None:
    """Bit accounting of `plan`, or None while it cannot be told."""
    return None
