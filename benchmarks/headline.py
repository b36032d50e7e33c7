"""The paper's headline on the bundled model: five recipes at W2A4, W2A6, W3A4 and W3A6, three seeds each.

    python -m benchmarks.headline [--quick] [--minutes 60] [--only ours,efficientdm] [--settings W2A4]
    python -m benchmarks.headline --model sprites-t2i        # results in headline_sprites_t2i.json

Every recipe at one setting has the same average weight bits, activation bits, exempt layers, optimiser steps,
pictures per step and teacher's records; a seed decides the calibration, the record, the training and the
noise of the evaluated pictures. Finished cells lie in the run folder and in `results/headline.csv` and are
not computed again (`--fresh` looks at the run folder alone), a killed training goes on from its checkpoint,
so that the command can be repeated until all cells are there; the results file holds what is there so far
and says how much is missing. Features are those of `sprites-encoder`.

`w2a4_fid_reduction` is the smallest of the seeds. `corrected_fid_reduction_worst` is the smallest of all
seeds and settings, `corrected_fid_reduction_worst_setting` that of the settings, each the mean of its seeds.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks._cell_command import measure_cells, options
from benchmarks._cell_files import write_cells
from benchmarks._cells import QUICK, SEEDS, SETTINGS, Bench, Cell, Scale
from benchmarks._record import RESULTS, Figure, record
from mpqdm_core.recipes import RECIPES

REDUCTION_BAR = 0.58  # the paper's, against its baseline at W2A4
HEADLINE = "W2A4"  # the setting of the headline itself


def cells(settings: Sequence[str], recipes: Sequence[str]) -> list[Cell]:
    """All cells, seed by seed, so that an early stop leaves every recipe with the same seeds."""
    return [
        Cell(setting=setting, recipe=recipe, seed=seed)
        for seed, setting, recipe in itertools.product(SEEDS, settings, recipes)
    ]


def figures_of(measured: Sequence[dict[str, Any]], planned: int) -> dict[str, Figure]:
    """Figures of what is there: means over seeds, and the headline itself."""
    figures = {"cells": Figure(len(measured), f"of {planned}")}
    by_setting = {setting: [c for c in measured if c["setting"] == setting] for setting in SETTINGS}
    for setting, entries in by_setting.items():
        for recipe in RECIPES:
            own = [entry for entry in entries if entry["recipe"] == recipe]
            for name, unit in (("fid_real", "FID"), ("fid_teacher", "FID to teacher"), ("psnr_db", "dB")):
                values = [entry[name] for entry in own if entry.get(name) is not None]
                if values:
                    key = f"{setting}_{recipe}_{name}".lower().replace("-", "_")
                    figures[key] = Figure(float(np.mean(values)), unit)
    reductions = reductions_by_seed(by_setting[HEADLINE], "ours", "efficientdm")
    if reductions:
        smallest = min(reductions)
        met = smallest >= REDUCTION_BAR and len(reductions) == len(SEEDS)
        figures["w2a4_fid_reduction"] = Figure(smallest, "share", bar=REDUCTION_BAR, met=met)
    corrected = {
        setting: found
        for setting, entries in by_setting.items()
        if (found := reductions_by_seed(entries, "mpqdm-corrected", "efficientdm"))
    }
    for setting, found in corrected.items():
        unit = "share, one seed" if len(found) == 1 else f"share, mean of {len(found)} seeds"
        figures[f"{setting.lower()}_corrected_fid_reduction"] = Figure(float(np.mean(found)), unit)
    for name, over_seeds in (("worst_setting", np.mean), ("worst", min)):
        if corrected:
            value = float(min(over_seeds(found) for found in corrected.values()))
            met = value >= 0 and all(len(found) == len(SEEDS) for found in corrected.values())
            figures[f"corrected_fid_reduction_{name}"] = Figure(
                value, "share", bar=0.0, met=met and len(corrected) == len(SETTINGS)
            )
    return figures


def reductions_by_seed(entries: Sequence[dict[str, Any]], recipe: str, baseline: str) -> list[float]:
    """1 - FID / FID of the baseline, to real pictures, for every seed that has both."""
    fid = {(entry["recipe"], entry["seed"]): entry.get("fid_real") for entry in entries}
    pairs = [(fid.get((recipe, seed)), fid.get((baseline, seed))) for seed in SEEDS]
    return [1 - own / other for own, other in pairs if own is not None and other]


def main() -> None:
    """Compute what is missing until the time is up, and write what is there."""
    asked = options(__doc__, "headline")
    settings = asked.settings.split(",") if asked.settings else list(SETTINGS)
    recipes = asked.only.split(",") if asked.only else list(RECIPES)
    scale, folder, planned = Scale(), asked.run, cells(settings, recipes)
    if asked.quick:
        scale, folder, planned = QUICK, asked.run / "quick", cells([HEADLINE], ["naive", "ours"])[:2]
    published = () if asked.fresh or asked.quick else (RESULTS / f"{asked.name}.csv",)
    bench = Bench(folder, scale, RECIPES, asked.model, published)
    measure_cells(bench, planned, asked.minutes)
    grid = planned if asked.quick else cells(list(SETTINGS), list(RECIPES))
    measured = [entry for cell in grid if (entry := bench.kept(cell)) is not None]
    if not measured:
        return
    notes = [json.dumps(asdict(scale)), *(f"{recipe.name}: {recipe.differs}" for recipe in RECIPES.values())]
    repeats = {f"{e['setting']}-{e['recipe']}-{e['seed']}": [e["fid_real"]] for e in measured}
    record(asked.name, figures=figures_of(measured, len(grid)), repeats=repeats, seed=0, notes=notes)
    place = folder if asked.quick else RESULTS
    write_cells(measured, place / f"{asked.name}.csv")
    bench.save_grid(measured, HEADLINE, place / f"{asked.name}.png")


if __name__ == "__main__":
    main()
