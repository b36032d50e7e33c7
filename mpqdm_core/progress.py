"""How long work says where it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Called with (done, total, message); may raise `Cancelled` to stop the work."""


def silent(done: int, total: int, message: str) -> None:
    """Listen to nothing: the default report."""
