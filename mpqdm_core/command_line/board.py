"""Commands around kept runs: sweep and runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqdm_core.allocation.settings import POLICIES, SCOPES, WEIGHTINGS
from mpqdm_core.command_line._console import Result, add_output, as_table
from mpqdm_core.command_line._engines import add_engine, staff
from mpqdm_core.command_line._model import FULL, add_model
from mpqdm_core.errors import SettingsError
from mpqdm_core.grids import GRIDS
from mpqdm_core.progress import Report

if TYPE_CHECKING:
    from mpqdm_core.board.run import KeptRun
    from mpqdm_core.board.store import RunStore

METRIC = "psnr_db"  # of the list; the files that `runs --export` writes have all of them
FORMATS = (".zip", ".json", ".csv", ".tex", ".html", ".py")


def add_commands(commands: Any) -> None:
    """Add the commands of this group to an argparse subparsers object."""
    sweep = commands.add_parser(
        "sweep", help="compute every combination of settings; finished ones are not computed again"
    )
    add_model(sweep)
    sweep.add_argument("--policies", nargs="+", choices=POLICIES, default=["uniform", "optimal"])
    sweep.add_argument("--weightings", nargs="+", choices=WEIGHTINGS, default=["sensitivity"])
    sweep.add_argument("--scopes", nargs="+", choices=SCOPES, default=["model"])
    sweep.add_argument("--grids", nargs="+", choices=GRIDS, default=["mid-rise"])
    sweep.add_argument("--bits", nargs="+", type=float, default=[3.0, 4.0], help="averages")
    sweep.add_argument("--activation-bits", nargs="+", default=["8"], help="2..8, or 'full'")
    sweep.add_argument(
        "--finetunings", nargs="+", default=["none"], help="recipes whose losses train the student, or none"
    )
    sweep.add_argument("--relation", nargs="+", choices=("on", "off"), default=["on"], help="TRD")
    sweep.add_argument("--seeds", nargs="+", type=int, default=[0])
    sweep.add_argument("--pictures", type=int, default=8, help="of each cell (default: %(default)s)")
    sweep.add_argument("--steps", type=int, default=60, help="of fine-tuning (default: %(default)s)")
    add_engine(sweep)
    _add_store(sweep)
    add_output(sweep)
    sweep.set_defaults(work=sweep_settings)

    runs = commands.add_parser("runs", help="list, export, import or forget kept runs")
    runs.add_argument("--only", nargs="*", default=[], help="first digits of ids; without them all runs")
    runs.add_argument(
        "--export",
        type=Path,
        help=f"write them to this file, in the format of its ending: {', '.join(FORMATS)}",
    )
    runs.add_argument("--import", type=Path, dest="taken", help="keep the runs of a zip too")
    runs.add_argument("--forget", action="store_true", help="delete the runs that --only names")
    _add_store(runs)
    add_output(runs)
    runs.set_defaults(work=handle_runs)


def sweep_settings(asked: argparse.Namespace, report: Report) -> Result:
    """Fill the cells that are missing."""
    from mpqdm_core.board.engine import run_sweep
    from mpqdm_core.board.store import RunStore
    from mpqdm_core.board.sweep import Effort, SweepSettings

    effort = Effort(pictures=asked.pictures, steps=asked.steps)
    settings = SweepSettings(
        policies=tuple(asked.policies),
        weightings=tuple(asked.weightings),
        scopes=tuple(asked.scopes),
        grids=tuple(asked.grids),
        average_bits=tuple(asked.bits),
        activation_bits=tuple(_bits(text) for text in asked.activation_bits),
        finetunings=tuple(asked.finetunings),
        relations=tuple(word == "on" for word in asked.relation),
        seeds=tuple(asked.seeds),
        effort=effort,
    )
    store = RunStore(asked.runs)
    who = staff(asked, effort, store.folder / "scratch", report)
    outcome = run_sweep(who.laboratory, settings, store, engine=who.engine, worker=who.worker, report=report)
    ids = {who.laboratory.id_of(cell) for cell in settings.cells()}
    own = [run for run in store.runs() if run.id in ids]
    counts = {"found": outcome.found, "computed": outcome.computed, "failed": outcome.failed}
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Result(
        values={"sweep": outcome.id, **counts, "runs": [_values(run) for run in own]},
        text=f"{_table(own)}\n{words}",
        exit_code=1 if outcome.failed and who.speaks else 0,
        shown=who.speaks,
    )


def handle_runs(asked: argparse.Namespace, report: Report) -> Result:
    """List the runs, after doing with them what is asked for."""
    from mpqdm_core.board.archive import import_runs
    from mpqdm_core.board.store import RunStore

    store = RunStore(asked.runs)
    if asked.taken is not None:
        import_runs(store, asked.taken)
    chosen = _chosen(store, asked.only)
    if asked.export is not None:
        _export(store, chosen, asked.export)
    if asked.forget:
        if not asked.only:
            raise SettingsError("--forget needs --only: name the runs by the first digits of their ids")
        store.remove([run.id for run in chosen])
    return Result(
        values={"runs": [_values(run) for run in chosen], "notices": store.notices},
        text="\n".join([_table(chosen), *store.notices]),
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, help="folder they are kept in; MPQDM_RUNS or the user's data folder otherwise"
    )


def _bits(text: str) -> int | None:
    if text == FULL:
        return None
    if not text.isdecimal():
        raise SettingsError(f"activation bits are whole numbers or {FULL!r}, got {text!r}")
    return int(text)


def _chosen(store: RunStore, starts: Sequence[str]) -> list[KeptRun]:
    runs = store.runs()
    if not starts:
        return list(runs)
    for start in starts:
        if not any(run.id.startswith(start) for run in runs):
            raise SettingsError(f"no run's id starts with {start!r}")
    return [run for run in runs if run.id.startswith(tuple(starts))]


def _export(store: RunStore, runs: Sequence[KeptRun], path: Path) -> None:
    """Write the runs in the format that the file's name ends with."""
    from mpqdm_core.board.archive import export_runs
    from mpqdm_core.board.blobs import write_whole
    from mpqdm_core.board.page import to_page
    from mpqdm_core.board.script import to_script
    from mpqdm_core.board.tables import to_csv, to_json, to_latex

    if path.suffix not in FORMATS:
        raise SettingsError(f"--export knows {', '.join(FORMATS)}, not {path.name!r}")
    if path.suffix == ".zip":
        export_runs(runs, store.blobs.get, path)
        return
    if path.suffix == ".py" and len(runs) != 1:
        raise SettingsError(f"a script makes one run, not {len(runs)}: name it with --only")
    writers = {
        ".json": lambda: to_json(runs),
        ".csv": lambda: to_csv(runs),
        ".tex": lambda: to_latex(runs),
        ".html": lambda: to_page(runs, store.blobs.get),
        ".py": lambda: to_script(runs[0]),
    }
    write_whole(path, writers[path.suffix]().encode())


def _values(run: KeptRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "title": run.title,
        "state": run.state,
        "error": run.error,
        "settings": dict(run.settings),
        "metrics": {name: metric.value for name, metric in run.metrics.items()},
    }


def _table(runs: Sequence[KeptRun]) -> str:
    rows = [
        (run.title, run.id[:8], run.state, "" if (m := run.metrics.get(METRIC)) is None else f"{m.value:.2f}")
        for run in runs
    ]
    return as_table(("run", "id", "state", "PSNR, dB"), rows)
