"""JSON from strangers: no key twice, no NaN, no numbers without end; and their texts, fit for a sentence."""

from __future__ import annotations

import json
from typing import Any

TEXT_SHOWN = 80  # characters of a stranger's text


def parse_json(text: str) -> Any:
    """Parse JSON, refusing what different readers would understand differently.

    Infinity is kept: diffusers writes it into schedules.

    Raises:
        ValueError: it is no JSON, names a key twice, or holds NaN.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)


def shown(value: Any, length: int = TEXT_SHOWN) -> str:
    """A value from a stranger's file for a sentence: printable, on one line, of a bearable length."""
    text = value if isinstance(value, str) else _briefly(value)
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return clean if len(clean) <= length else f"{clean[: length - 1]}\N{HORIZONTAL ELLIPSIS}"


def _briefly(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) <= 2 and all(isinstance(v, str) for v in value):
        return str([v[:TEXT_SHOWN] for v in value])
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a huge number"
    return f"a {type(value).__name__}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it names {shown(twice)} twice")
    return made


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("it holds NaN")
    return float(name)
