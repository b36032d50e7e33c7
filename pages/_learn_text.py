"""The lessons as data: a file each under assets/text/learn/<language>, so that a translation is a folder."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from mpqdm_core import permalink
from mpqdm_core.errors import DataError
from mpqdm_core.permalink import PageState
from pages._text import ASSETS

FOLDER = ASSETS / "text" / "learn"
LANGUAGE = "en"  # complete; what another folder lacks is taken from here
FENCE = "+++"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One idea, one widget, one task.

    Attributes:
        number: place in the course, from 1.
        id: name of the lesson in links and in the visitor's progress; the same in every language.
        widget: name registered in assets/js/learn_*.js.
        title: a few words.
        html: the idea, from Markdown.
        task: what to do, with a goal the widget checks.
        hint: for those who are stuck.
        done: what one has learned, shown when the goal is reached.
        explore: what to try after opening the explorer.
        formula: in plain characters.
        source: where it comes from.
        opens: the state of the explorer the lesson leads to.
        at_outlier: select the channel with the heaviest tail of the model, whichever that is.
        words: what the widget says, by key.
    """

    number: int
    id: str
    widget: str
    title: str
    html: str
    task: str
    hint: str
    done: str
    explore: str
    formula: str
    source: str
    opens: PageState
    at_outlier: bool
    words: dict[str, str]

    def query(self, outlier: tuple[str, int] | None = None) -> str:
        """The explorer's address for this lesson; `outlier` is a layer and a channel."""
        state = replace(self.opens, lesson=self.number)
        if self.at_outlier and outlier is not None:
            state = replace(state, layer=outlier[0], channel=outlier[1])
        return permalink.encode(state)


def languages() -> tuple[str, ...]:
    """Languages there are texts in."""
    return tuple(sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))


@cache
def lessons(language: str = LANGUAGE) -> tuple[Lesson, ...]:
    """All lessons in order.

    Raises:
        DataError: a file cannot be read.
    """
    originals = sorted((FOLDER / LANGUAGE).glob("[0-9][0-9]-*.md"))
    return tuple(_read(_translated(path.name, language), place) for place, path in enumerate(originals, 1))


@cache
def table(name: str, language: str = LANGUAGE) -> dict[str, Any]:
    """The contents of `name`.toml.

    Raises:
        DataError: the file cannot be read.
    """
    return _toml(_translated(f"{name}.toml", language).read_text(encoding="utf-8"), name)


@cache
def text(name: str, language: str = LANGUAGE) -> str:
    """The contents of `name`.md."""
    return _translated(f"{name}.md", language).read_text(encoding="utf-8")


def glossary(language: str = LANGUAGE) -> str:
    """The glossary as Markdown, formulas in LaTeX, in alphabetical order."""
    entries = sorted(table("glossary", language).values(), key=lambda entry: str(entry["name"]).casefold())
    return "\n\n".join(_entry(**entry) for entry in entries)


def _entry(*, name: str, text: str, formula: str = "", source: str = "") -> str:
    parts = [f"## {name}", text, f"$${formula}$$" if formula else "", f"*{source}*" if source else ""]
    return "\n\n".join(part for part in parts if part)


def _translated(name: str, language: str) -> Path:
    wanted = FOLDER / language / name
    return wanted if language in languages() and wanted.is_file() else FOLDER / LANGUAGE / name


def _read(path: Path, number: int) -> Lesson:
    _, front, body = path.read_text(encoding="utf-8").split(f"{FENCE}\n", 2)
    values = _toml(front, path.name)
    opens = values.pop("opens", {})
    at_outlier = opens.pop("at_outlier", False)
    try:
        return Lesson(
            number=number,
            id=path.stem.partition("-")[2],
            html=MarkdownIt().render(body),
            opens=PageState(**opens),
            at_outlier=at_outlier,
            **values,
        )
    except TypeError as err:
        raise DataError(f"{path.name} does not describe a lesson: {err}") from err


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise DataError(f"{name} is damaged: {err}") from err
