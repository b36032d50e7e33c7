"""From kept runs to what the Ablation page shows of them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.catalog import metric_info, metrics_of, setting_title, setting_words, settings_of
from mpqdm_core.board.differences import difference, plan_difference
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.shelf import Library
from mpqdm_core.board.sweep import Cell
from mpqdm_core.errors import MpqdmError
from pages._bridge import dumps
from pages._figures_ablation import layer_figure, scatter_figure
from pages._html import warning

MAX_COLUMNS = 8  # of the matrix of pictures
FIRST_COLUMNS = 4  # shown while nothing is chosen
TWO = "Tick two runs, or pin a baseline and tick one, to see which layers got other bits."
HIDDEN = "."  # settings with a dot are for scripts: samplers, calibration, tables


def board(
    runs: Sequence[KeptRun], own: Sequence[str], baseline: str | None, waiting: Sequence[Cell] = ()
) -> str:
    """What assets/js/ablation.js shows: runs, and cells that are still to be computed."""
    pinned = next((run for run in runs if run.id == baseline), None)
    names = [name for name in settings_of(runs) if HIDDEN not in name]
    names = names or [name for name in (asdict(waiting[0]) if waiting else {})]
    metrics = metrics_of(runs)
    mine = set(own)
    entries = [_entry(run, pinned, names, run.id in mine) for run in runs]
    entries += [_waiting(cell, place, names) for place, cell in enumerate(waiting)]
    return dumps(
        {
            "runs": entries,
            "settings": [[name, setting_title(name)] for name in names],
            "metrics": [
                {
                    "name": info.name,
                    "title": info.title,
                    "unit": info.unit,
                    "hint": info.hint,
                    "higher": info.higher_is_better,
                    "minor": info.minor,
                }
                for info in metrics
            ],
            "baseline": None if pinned is None else pinned.id,
        }
    )


def scatter(runs: Sequence[KeptRun], cost: str, quality: str, baseline: str | None) -> str:
    """Quality against cost; empty without runs, and a sentence where none of them has both numbers."""
    shown = [run for run in runs if cost in run.metrics and quality in run.metrics]
    if shown:
        return dumps(scatter_figure(shown, cost, quality, baseline))
    names = (cost, quality)
    lacking = [name for name in names if not any(name in run.metrics for run in runs)] or names
    return dumps({"lacking": " and ".join(metric_info(name).title for name in lacking)}) if runs else ""


def columns(library: Library, choice: dict[str, Any]) -> list[KeptRun]:
    """The runs whose pictures are shown: the baseline, then the ticked ones, or the first of the table."""
    ids = list(choice.get("chosen") or list(choice.get("shown", ()))[:FIRST_COLUMNS])
    if choice.get("baseline"):
        ids = [choice["baseline"], *(name for name in ids if name != choice["baseline"])]
    return [run for run in library.chosen(ids) if run.pictures is not None][:MAX_COLUMNS]


def sheets(library: Library, runs: Sequence[KeptRun]) -> str:
    """What assets/js/ablation_matrix.js shows: full precision, then a column a run; a row a seed."""
    made: list[dict[str, Any]] = []
    rows: dict[int, str] = {}
    references: set[str] = set()
    for run in runs:
        pictures = run.pictures
        if pictures is None:
            continue
        rows |= dict(zip(pictures.seeds, pictures.names, strict=True))
        common = {"tile": pictures.tile, "seeds": list(pictures.seeds)}
        if pictures.reference is not None and pictures.reference not in references:
            references.add(pictures.reference)
            made.append({"title": "full precision", "src": _source(library, pictures.reference), **common})
        made.append({"title": _name(run), "src": _source(library, pictures.drawn), **common})
    return dumps(
        {"columns": made, "rows": [{"seed": seed, "name": name} for seed, name in sorted(rows.items())]}
    )


def layers(library: Library, runs: Sequence[KeptRun]) -> tuple[str, str]:
    """Figure and sentence on where the first two of the runs gave their bits."""
    pair = [run for run in runs if run.plan is not None][:2]
    if len(pair) < 2:
        return "", f"<p class='mpq-hint'>{TWO}</p>"
    try:
        plans = [BitPlan.from_json(library.read(str(run.plan)).decode()) for run in pair]
        rows = plan_difference(*plans)
    except MpqdmError as err:
        return "", warning(str(err))
    changed = sum(row.more + row.fewer for row in rows)
    total = sum(row.channels for row in rows)
    names = [_name(run) for run in pair]
    words = (
        f"{changed:,} of {total:,} channels have other bits in {names[1]} than in {names[0]}: "
        f"{sum(row.more for row in rows):,} more, {sum(row.fewer for row in rows):,} fewer."
    )
    return dumps(layer_figure(rows, names)), f"<p class='mpq-hint'>{escape(words)}</p>"


def _entry(run: KeptRun, pinned: KeptRun | None, names: Sequence[str], own: bool) -> dict[str, Any]:
    changes = {}
    if pinned is not None and pinned.id != run.id:
        found = {name: difference(run, pinned, name) for name in run.metrics}
        changes = {name: [m.value, m.low, m.high] for name, m in found.items() if m is not None}
    return {
        "id": run.id,
        "title": run.title,
        "state": run.state,
        "error": run.error,
        "note": run.note,
        "own": own,
        "settings": {name: setting_words(name, run.settings.get(name)) for name in names},
        "order": {name: run.settings.get(name) for name in names},
        "metrics": {name: [m.value, m.low, m.high] for name, m in run.metrics.items()},
        "change": changes,
    }


def _waiting(cell: Cell, place: int, names: Sequence[str]) -> dict[str, Any]:
    known = asdict(cell)
    return {
        "id": f"waiting-{place}",
        "title": cell.title,
        "state": "waiting",
        "error": "",
        "note": "",
        "own": True,
        "settings": {name: setting_words(name, known[name]) if name in known else "" for name in names},
        "order": {name: known.get(name) for name in names},
        "metrics": {},
        "change": {},
    }


def _name(run: KeptRun) -> str:
    seed = run.settings.get("seed")
    return run.title if not seed else f"{run.title}, seed {seed}"


def _source(library: Library, name: str) -> str:
    return "data:image/png;base64," + b64encode(library.read(name)).decode()
