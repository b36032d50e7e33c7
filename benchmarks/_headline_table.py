"""The table of the headline's cells for README.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks._record import RESULTS
from mpqdm_core.recipes import RECIPES

CELLS = RESULTS / "headline.csv"
SHOWN = {
    "fid_real": ("FID to real", "{:.1f}"),
    "sfid_real": ("sFID to real", "{:.1f}"),
    "inception_score": ("IS", "{:.2f}"),
    "precision_real": ("precision, real", "{:.2f}"),
    "fid_teacher": ("FID to teacher", "{:.1f}"),
    "precision_teacher": ("precision, teacher", "{:.2f}"),
    "class_accuracy": ("class accuracy", "{:.3f}"),
    "psnr_db": ("PSNR, dB", "{:.2f}"),
    "effective_bits": ("effective bits", "{:.3f}"),
}


def markdown(path: Path = CELLS) -> str:
    """Means over the seeds, with the smallest and the largest of them in brackets."""
    cells = pd.read_csv(path)
    lines = [
        "| setting | recipe | seeds | " + " | ".join(title for title, _ in SHOWN.values()) + " |",
        "| --- | --- | --- |" + " --- |" * len(SHOWN),
    ]
    for (setting, recipe), group in cells.groupby(["setting", "recipe"], sort=False):
        values = [_range(group[name], form) for name, (_, form) in SHOWN.items()]
        lines.append(f"| {setting} | {RECIPES[recipe].title} | {len(group)} | " + " | ".join(values) + " |")
    teacher = _range(cells.drop_duplicates("seed")["fid_real_teacher"], SHOWN["fid_real"][1])
    return "\n".join([*lines, "", f"Full precision's own FID to real pictures: {teacher}."])


def _range(values: pd.Series[float], form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return form.format(values.mean()) if low == high else f"{form.format(values.mean())} ({low} to {high})"
