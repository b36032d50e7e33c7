"""Files out of and into the board: every format of the export, and zips of runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mpqdm_core.board.archive import Imported, Limits, export_runs, import_runs
from mpqdm_core.board.page import to_page
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.script import to_script
from mpqdm_core.board.shelf import Library
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.tables import to_csv, to_json, to_latex
from mpqdm_core.errors import DataError
from pages._ablation_store import MAX_VISITOR_RUNS, shared_server

FORMATS = (
    ("HTML report with pictures", "html"),
    ("CSV table", "csv"),
    ("JSON", "json"),
    ("LaTeX table", "tex"),
    ("Python script of one run", "py"),
    ("Zip, to be read again here", "zip"),
)
MEBIBYTE = 2**20
SHARED_LIMITS = Limits(entries=4 * MAX_VISITOR_RUNS, total=64 * MEBIBYTE)


def write(library: Library, runs: Sequence[KeptRun], kind: str) -> str:
    """Write runs as a file to download; return its path.

    Raises:
        DataError: there is nothing to write, or too much for a script.
        StoreError: a file of a run is missing, or the disk is full.
    """
    if not runs:
        raise DataError("there are no runs to export: compute some, or take the filter away")
    path = Path(tempfile.mkdtemp(prefix="mpqdm-")) / f"mpqdm-runs.{kind}"
    if kind == "zip":
        return str(export_runs(runs, library.read, path))
    if kind == "py" and len(runs) != 1:
        raise DataError(f"a script makes one run again: tick exactly one, not {len(runs)}")
    makers: dict[str, Callable[[], str]] = {
        "html": lambda: to_page(runs, library.read, title="Runs of the MPQ-DM Explorer"),
        "csv": lambda: to_csv(runs),
        "json": lambda: to_json(runs),
        "tex": lambda: to_latex(runs),
        "py": lambda: to_script(runs[0]),
    }
    path.write_text(makers[kind](), encoding="utf-8")
    return str(path)


def read(store: RunStore, path: str) -> Imported:
    """Add the runs of a zip.

    Raises:
        LoadError: it is no zip of runs, or anything in it is not as it should be.
        StoreError: they cannot be kept.
    """
    return import_runs(store, path, SHARED_LIMITS if shared_server() else None)
