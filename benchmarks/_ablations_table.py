"""The table of the ablations' cells for README.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ablations
from benchmarks._cell_files import read_cells
from benchmarks._record import RESULTS

CELLS = RESULTS / "ablations.csv"
SHOWN = {"fid_real": "{:.1f}", "fid_teacher": "{:.1f}", "psnr_db": "{:.2f}"}
NOT_MEASURED = "-"


def markdown(path: Path = CELLS) -> str:
    """A line for each variant; for each setting FID to real pictures, FID to the teacher's, and PSNR."""
    cells = {(cell["setting"], cell["recipe"]): cell for cell in read_cells(path)}
    settings = list(dict.fromkeys(setting for setting, _ in cells))
    lines = [
        "| one thing changed | "
        + " | ".join(f"{setting}: FID, to teacher, PSNR" for setting in settings)
        + " |",
        "| --- |" + " --- |" * len(settings),
    ]
    for name, recipe in ablations.variants().items():
        shown = [_figures(cells.get((setting, name))) for setting in settings]
        if set(shown) != {NOT_MEASURED}:
            title = "nothing: MPQ-DM corrected" if recipe is ablations.BASE else recipe.title
            lines.append(f"| {title} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _figures(cell: dict[str, float] | None) -> str:
    if cell is None:
        return NOT_MEASURED
    return ", ".join(form.format(cell[name]) for name, form in SHOWN.items())
