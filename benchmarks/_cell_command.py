"""The command line of the benchmarks of cells, and their loop."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._cells import MODEL, Bench, Cell


def measure_cells(bench: Bench, planned: Sequence[Cell], minutes: float) -> list[dict[str, Any]]:
    """Compute what is missing until the time is up; return what is there."""
    deadline, measured = time.monotonic() + 60 * minutes, []
    for cell in planned:
        if (kept := bench.kept(cell)) is not None:
            measured.append(kept)
            continue
        if time.monotonic() > deadline:
            continue
        entry = bench.measure(cell)
        measured.append(entry)
        print(f"{cell.key}: FID {entry['fid_real']:.1f}, to teacher {entry['fid_teacher']:.1f}, ", end="")
        print(f"PSNR {entry['psnr_db']:.2f} dB, {entry['train_s'] + entry['sample_s']:.0f} s", flush=True)
    return measured


def options(description: str | None, name: str) -> argparse.Namespace:
    """Command line of a benchmark of cells.

    Args:
        description: of the command.
        name: of the benchmark.

    Returns:
        what was asked for, and as `name` that of the results: of another model than the first one they lie
        in files of their own.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a toy of a run, under 50 s on two cores")
    add("--minutes", type=float, default=600.0, help="start no cell after this time")
    add("--only", default="", help="recipes, separated by commas; all of them otherwise")
    add("--settings", default="", help="settings, separated by commas; all of them otherwise")
    add("--model", default=MODEL, help="a bundled model of the sprites")
    add("--run", type=Path, default=None, help="where finished cells are kept")
    add("--fresh", action="store_true", help="take no cells from the results files: measure them again")
    asked = parser.parse_args()
    ending = "" if asked.model == MODEL else "_" + asked.model.replace("-", "_")
    asked.name = name + ending
    asked.run = asked.run or Path("runs") / asked.name
    return asked
