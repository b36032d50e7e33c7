"""A Python script that makes a run again with `mpqdm_core` and says whether the same came out."""

from __future__ import annotations

import pprint
from importlib.resources import files
from string import Template

from mpqdm_core.board.run import KeptRun
from mpqdm_core.errors import DataError

TEMPLATE = "reproduce.py.txt"


def to_script(run: KeptRun) -> str:
    """The script of a cell of a sweep.

    Raises:
        DataError: the run is no finished cell: only those carry everything a script needs.
    """
    if run.kind != "cell" or run.state != "done":
        raise DataError("only finished cells of a sweep can be written as a script")
    expected = {name: metric.value for name, metric in run.metrics.items()}
    return Template(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")).substitute(
        title=_plain(run.title),
        settings=_literal(dict(run.settings)),
        hashes=_literal(dict(run.hashes)),
        expected=_literal(expected),
        versions=_plain(", ".join(f"{name} {version}" for name, version in run.versions.items())),
        device=_plain(run.device),
    )


def _plain(text: str) -> str:
    """A text that ends no string and begins no line: runs also come from strangers."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in "\"'\\")


def _literal(value: object) -> str:
    return pprint.pformat(value, width=100, sort_dicts=False)
