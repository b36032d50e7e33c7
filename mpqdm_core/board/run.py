"""A run that is kept: what was asked for, what came out, and on what.

A run is a document of JSON scalars; its pictures and its bit plan are files found by the hash of their
contents. Documents also come from strangers, as parts of a zip, so reading one checks everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from mpqdm_core.board.reading import Reader
from mpqdm_core.errors import DataError

FORMAT = 1
KINDS = ("cell", "allocation", "comparison", "finetune")
STATES = ("done", "failed")
SMALLEST_TILE, LARGEST_TILE = 1, 1024
MAX_NOTE = 500
Scalar = str | int | float | bool | None
ID = re.compile(r"[0-9a-f]{32}")
BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured number with its interval."""

    value: float
    low: float | None = None  # of the interval; None where one number has no spread
    high: float | None = None
    n: int = 0  # samples behind it; 0 for a number that is counted, not measured
    values: tuple[float, ...] = ()  # one a sample where there are such, in the order of the seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a chart."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            DataError: x and y are of different lengths.
        """
        if len(self.x) != len(self.y):
            raise DataError(f"a curve needs as many x as y, got {len(self.x)} and {len(self.y)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """A row of square pictures in one PNG, and the same pictures in full precision."""

    tile: int  # pixels a side
    names: tuple[str, ...]  # what each shows
    seeds: tuple[int, ...]
    drawn: str  # hash of the PNG
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """Everything about one run but its files."""

    id: str  # 32 hexadecimal digits
    kind: str  # one of `KINDS`
    title: str
    state: str = "done"  # one of `STATES`
    error: str = ""  # the sentence of a failed run
    created: str = ""  # ISO 8601, UTC
    sweep: str = ""  # id of the sweep it belongs to
    note: str = ""  # written by its owner
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)  # model, calibration, plan
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    pictures: Pictures | None = None
    plan: str | None = None  # hash of the bit plan's text
    seconds: Mapping[str, float] = field(default_factory=dict)  # by part of the work
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> tuple[str, ...]:
        """Hashes of its files."""
        drawn = () if self.pictures is None else (self.pictures.drawn, self.pictures.reference)
        return tuple(name for name in (*drawn, self.plan) if name is not None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form; `KeptRun.from_dict` reads it."""
        return {"format": FORMAT, **asdict(self)}

    def noted(self, note: str) -> KeptRun:
        """The same run with another note."""
        return replace(self, note=note[:MAX_NOTE])

    @classmethod
    def from_dict(cls, document: object) -> KeptRun:
        """Read a document, from wherever it comes.

        Raises:
            LoadError: it is not the document of a run, or of a newer version.
        """
        read = Reader(document, "a run")
        version = read.integer("format", 1, 1_000)
        if version > FORMAT:
            raise read.wrong(f"it is of version {version}, this program reads up to {FORMAT}")
        return cls(
            id=read.matching("id", ID),
            kind=read.one_of("kind", KINDS),
            title=read.text("title", 200),
            state=read.one_of("state", STATES),
            error=read.text("error", 2_000),
            created=read.text("created", 40),
            sweep=read.text("sweep", 40),
            note=read.text("note", MAX_NOTE),
            settings=read.scalars("settings"),
            hashes=read.texts("hashes"),
            metrics={name: _metric(part) for name, part in read.parts("metrics")},
            curves={name: _curve(part) for name, part in read.parts("curves")},
            pictures=_pictures(read.part("pictures")),
            plan=read.matching("plan", BLOB) if read.has("plan") else None,
            seconds=read.numbers_by_name("seconds"),
            device=read.text("device", 200),
            versions=read.texts("versions"),
        )


def new_id() -> str:
    """An id that no other run has."""
    return uuid4().hex


def now() -> str:
    """This moment as runs write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _metric(read: Reader) -> Metric:
    return Metric(
        value=read.number("value"),
        low=read.number("low") if read.has("low") else None,
        high=read.number("high") if read.has("high") else None,
        n=read.integer("n", 0, 10**9),
        values=read.numbers("values"),
    )


def _curve(read: Reader) -> Curve:
    x, y = read.numbers("x"), read.numbers("y")
    if len(x) != len(y):
        raise read.wrong(f"x has {len(x)} entries and y {len(y)}")
    return Curve(x=x, y=y)


def _pictures(read: Reader | None) -> Pictures | None:
    if read is None:
        return None
    seeds = tuple(int(value) for value in read.numbers("seeds"))
    names = read.words("names", 120)
    if len(names) != len(seeds) or not names:
        raise read.wrong(f"{len(names)} names for {len(seeds)} pictures")
    return Pictures(
        tile=read.integer("tile", SMALLEST_TILE, LARGEST_TILE),
        names=names,
        seeds=seeds,
        drawn=read.matching("drawn", BLOB),
        reference=read.matching("reference", BLOB) if read.has("reference") else None,
    )
