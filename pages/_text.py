"""Words of the page, read from assets/text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@cache
def text(name: str) -> str:
    """The contents of assets/text/`name`.md."""
    return (ASSETS / "text" / f"{name}.md").read_text(encoding="utf-8")
