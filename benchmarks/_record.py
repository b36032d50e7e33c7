"""The results file every benchmark writes: figures with their bars, raw repeats, what they ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "numpy", "scipy", "diffusers", "gradio", "torchmetrics")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        value: what was measured.
        unit: of value and bar.
        bar: what it should reach, if anything was asked.
        met: whether it did; None without a bar.
    """

    value: float
    unit: str
    bar: float | None = None
    met: bool | None = None


def arguments(description: str | None = None) -> argparse.Namespace:
    """Command line of a benchmark: `--quick` for fewer repeats or smaller data, under 50 s on two cores."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller, under 50 s on two cores")
    return parser.parse_args()


def record(
    name: str,
    *,
    figures: Mapping[str, Figure],
    repeats: Mapping[str, Sequence[float]],
    seed: int,
    folder: Path = RESULTS,
    notes: Sequence[str] = (),
) -> Path:
    """Write `<folder>/<name>.json` and print one line a figure.

    Args:
        name: of the benchmark.
        figures: by name, without the benchmark's.
        repeats: raw measurements by name; median, smallest and largest are written beside them.
        seed: of everything random in it.
        folder: where the file goes.
        notes: sentences on how it was measured, for instance that it was a quick run.

    Returns:
        the path of the file.
    """
    content = {
        "benchmark": name,
        "figures": {
            key: {"value": figure.value, "unit": figure.unit, "bar": figure.bar, "met": figure.met}
            for key, figure in figures.items()
        },
        "repeats": {key: _summary(values) for key, values in repeats.items()},
        "notes": list(notes),
        "seed": seed,
        "device": device(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()),
        "versions": versions(),
        "commit": commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for key, figure in figures.items():
        bar = "" if figure.bar is None else f"  bar {figure.bar:g}: {'met' if figure.met else 'NOT met'}"
        print(f"{name}.{key} = {figure.value:.4g} {figure.unit}{bar}")
    return path


def device() -> str:
    """The processor or GPU in words, with the number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else model}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Python and the packages that decide speed; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Hash of the checked-out commit, with `+` where files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        result = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
        return result.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _summary(values: Sequence[float]) -> dict[str, Any]:
    """Raw values with their median and spread."""
    raw = [float(value) for value in values]
    if not raw:
        return {"raw": []}
    return {"raw": raw, "median": statistics.median(raw), "spread": [min(raw), max(raw)]}
