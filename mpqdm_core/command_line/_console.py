"""Between the library and a terminal: progress, Ctrl-C, results."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from tqdm import tqdm

from mpqdm_core.errors import Cancelled
from mpqdm_core.progress import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command found out."""

    values: Mapping[str, Any]  # JSON
    text: str
    exit_code: int = 0
    shown: bool = True  # False: another process of the same command prints it


class Stop:
    """Turns Ctrl-C into `Cancelled` at the next report; pressed twice, it interrupts at once."""

    def __init__(self) -> None:
        """Nobody has pressed it yet."""
        self._pressed = False
        self._bar: tqdm[Any] | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True

    def report(self, *, quiet: bool) -> Report:
        """Make a report that draws a bar, unless quiet."""

        def listen(done: int, total: int, message: str) -> None:
            if not quiet:
                self._draw(done, total, message)
            if self._pressed:
                raise Cancelled("Stopped.")

        return listen

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, done: int, total: int, message: str) -> None:
        if self._bar is None:
            another = os.environ.get("RANK", "0") != "0"  # of several processes the first one draws
            self._bar = tqdm(total=total, leave=False, disable=another)
        if (self._bar.total, self._bar.n) != (total, done):
            if done < self._bar.n or total != self._bar.total:
                self._bar.reset(total)
            self._bar.update(done - self._bar.n)
        self._bar.set_description(message)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def as_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns that line up: the first to the left, numbers to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
