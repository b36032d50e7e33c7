"""Reading JSON from strangers: every value is of the right type and size, or a sentence says which is not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from mpqdm_core.errors import LoadError

MAX_ENTRIES = 10_000  # of any list
MAX_NAMES = 200  # of any mapping
MAX_TEXT = 2_000  # letters of a setting
NAME = re.compile(r"[A-Za-z0-9_.:\- ]{1,120}")
Scalar = str | int | float | bool | None


class Reader:
    """One JSON object and where it stands, for the messages."""

    def __init__(self, document: object, where: str) -> None:
        """Look at one object.

        Raises:
            LoadError: it is none.
        """
        self.where = where
        if not isinstance(document, dict):
            raise self.wrong("it is no JSON object")
        if len(document) > MAX_NAMES:
            raise self.wrong(f"it has {len(document)} entries, at most {MAX_NAMES} are read")
        self._values = document

    def wrong(self, what: str) -> LoadError:
        """An error that says where it was found; to be raised."""
        return LoadError(f"{self.where} cannot be read: {what}")

    def has(self, name: str) -> bool:
        """Whether there is a value other than null."""
        return self._values.get(name) is not None

    def text(self, name: str, longest: int) -> str:
        """A text; a missing one is empty."""
        value = self._values.get(name, "")
        if not isinstance(value, str) or len(value) > longest:
            raise self.wrong(f"{name} must be a text of at most {longest} letters")
        return value

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        """A text of a given form."""
        value = self._values.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(f"{name} must match {pattern.pattern}")
        return value

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """One of a few words."""
        value = self._values.get(name)
        if not isinstance(value, str) or value not in allowed:
            raise self.wrong(f"{name} must be one of {', '.join(allowed)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number within [low, high]."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(f"{name} must be a whole number from {low} to {high}")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        return self._finite(self._values.get(name), name)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Finite numbers; a missing list is empty."""
        return tuple(self._finite(value, name) for value in self._list(name))

    def words(self, name: str, longest: int) -> tuple[str, ...]:
        """Short texts; a missing list is empty."""
        values = self._list(name)
        if any(not isinstance(value, str) or len(value) > longest for value in values):
            raise self.wrong(f"{name} must be texts of at most {longest} letters")
        return tuple(str(value) for value in values)

    def texts(self, name: str) -> dict[str, str]:
        """Texts by name."""
        inner = self._inner(name)
        return {key: inner.text(key, MAX_TEXT) for key in inner._names()}

    def numbers_by_name(self, name: str) -> dict[str, float]:
        """Finite numbers by name."""
        inner = self._inner(name)
        return {key: inner.number(key) for key in inner._names()}

    def scalars(self, name: str) -> dict[str, Scalar]:
        """Texts, finite numbers, truth values and nulls by name."""
        inner = self._inner(name)
        return {key: inner._scalar(key) for key in inner._names()}

    def part(self, name: str) -> Reader | None:
        """An inner object, or None where there is none."""
        value = self._values.get(name)
        return None if value is None else Reader(value, f"{self.where}, {name}")

    def parts(self, name: str) -> Iterator[tuple[str, Reader]]:
        """Inner objects by name."""
        inner = self._inner(name)
        for key in inner._names():
            yield key, Reader(inner._values[key], f"{self.where}, {name} {key}")

    def _inner(self, name: str) -> Reader:
        return Reader(self._values.get(name, {}), f"{self.where}, {name}")

    def _names(self) -> list[str]:
        if wrong := [key for key in self._values if not NAME.fullmatch(str(key))]:
            raise self.wrong(f"{str(wrong[0])[:40]!r} is no name")
        return list(self._values)

    def _list(self, name: str) -> list[object]:
        values = self._values.get(name, [])
        if not isinstance(values, list | tuple) or len(values) > MAX_ENTRIES:
            raise self.wrong(f"{name} must be a list of at most {MAX_ENTRIES} entries")
        return list(values)

    def _finite(self, value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise self.wrong(f"{name} must hold finite numbers")
        if not math.isfinite(value):
            raise self.wrong(f"{name} must hold finite numbers")
        return value if isinstance(value, int) and abs(value) < 2**63 else float(value)

    def _scalar(self, name: str) -> Scalar:
        value = self._values[name]
        if value is None or isinstance(value, bool):
            return value
        return self.text(name, MAX_TEXT) if isinstance(value, str) else self.number(name)
