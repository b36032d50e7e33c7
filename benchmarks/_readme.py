"""Write the figures of `benchmarks/results` into README.md, docs and model cards, between their markers.

    python -m benchmarks._readme

Nothing in these tables is typed by hand: a figure that was not measured does not appear.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _ablations_table, _headline_table, _peers_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES, HEADLINE, ABLATIONS, PEERS = "figures", "headline", "ablations", "peers"  # names of markers
CARD_BENCHMARK = "zoo_quality"  # its figures end in the name of a model


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown table of all figures: value, bar, met, benchmark, device."""
    lines = ["| figure | measured | bar | met |", "| --- | --- | --- | --- |"]
    for name, result in sorted(results.items()):
        for figure, entry in result["figures"].items():
            bar = entry.get("bar")
            met = {True: "yes", False: "**no**", None: ""}[entry.get("met")]
            value = f"{number(entry['value'])} {entry['unit']}"
            lines.append(f"| `{name}.{figure}` | {value} | {'' if bar is None else number(bar)} | {met} |")
    devices = sorted({str(result["device"]) for result in results.values()})
    return "\n".join([*lines, "", f"Measured on: {'; '.join(devices)}."])


def with_bars(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The results with only those figures of which something was asked."""
    return {
        name: {**result, "figures": {k: v for k, v in result["figures"].items() if v.get("bar") is not None}}
        for name, result in results.items()
    }


def number(value: float) -> str:
    """Three significant digits, whole numbers whole."""
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def read_results(only: str | None) -> dict[str, dict[str, Any]]:
    """Read the results files, or a single one."""
    paths = sorted(RESULTS.glob("*.json") if only is None else RESULTS.glob(f"{only}.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def of_model(results: dict[str, dict[str, Any]], model: str) -> dict[str, dict[str, Any]]:
    """The results with only those figures that end in a model's name."""
    ending = "_" + model.replace("-", "_")
    return {
        name: {
            **result,
            "figures": {key: value for key, value in result["figures"].items() if key.endswith(ending)},
        }
        for name, result in results.items()
    }


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a table."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Replace what stands between the markers of each table."""
    for name, content in tables.items():
        begin, end = markers(name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return text


def documents() -> dict[Path, dict[str, str]]:
    """The tables of every document that has some, by name of their markers."""
    results = read_results(None)
    own = {
        FIGURES: table(with_bars(results)),
        HEADLINE: _headline_table.markdown(),
        ABLATIONS: _ablations_table.markdown(),
        PEERS: _peers_table.documented(),
    }
    tables = {ROOT / "README.md": own, ROOT / "docs" / "measured.md": {FIGURES: table(results)}}
    for path in sorted(ROOT.glob("assets/models/*/README.md")):
        if markers(FIGURES)[0] in path.read_text(encoding="utf-8"):
            tables[path] = {FIGURES: table(of_model(read_results(CARD_BENCHMARK), path.parent.name))}
    return tables


def main() -> None:
    """Rewrite the documents."""
    for path, tables in documents().items():
        path.write_text(fill(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
