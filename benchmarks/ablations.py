"""The paper's ablations on the bundled model, at W3A4 and W2A4, each against MPQ-DM corrected.

    python -m benchmarks.ablations [--quick] [--minutes 60] [--settings W2A4] [--model sprites-t2i] [--fresh]

One thing is changed at a time: outlier-driven bits on or off, the relation loss on or off, kurtosis against
random and head-tail selection, relation against squared distance of features, the window and the temperature.
Cells, budget and resuming are as in `benchmarks.headline`, whose cells of MPQ-DM corrected are taken over;
one seed. Other settings than the two can be asked for as well.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

from benchmarks._cell_command import measure_cells, options
from benchmarks._cell_files import read_cells, write_cells
from benchmarks._cells import QUICK, Bench, Cell, Scale
from benchmarks._record import RESULTS, Figure, record
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.recipes import RECIPES, Recipe

SETTINGS = ("W3A4", "W2A4")
SEED = 0
BASE = RECIPES["mpqdm-corrected"]
TRAINED = BASE.finetuning or FinetuneSettings()


def variant(name: str, title: str, *, policy: str | None = None, **finetuning: object) -> Recipe:
    """MPQ-DM corrected with another selection policy or other fine-tuning settings."""
    allocation = BASE.allocation if policy is None else replace(BASE.allocation, policy=policy)
    tuned = replace(TRAINED, **finetuning)  # type: ignore[arg-type]
    return replace(
        BASE, name=name, title=title, differs=f"as {BASE.name}, except: {title}",
        allocation=allocation, finetuning=tuned,
    )  # fmt: skip


def variants() -> Mapping[str, Recipe]:
    """Everything that is compared, by name."""
    listed = [
        BASE,
        variant("no-omq", "uniform bits", policy="uniform"),
        variant("no-trd", "task loss only", relation_weight=0.0),
        variant("neither", "uniform bits and task loss only", policy="uniform", relation_weight=0.0),
        variant("random", "channels selected at random", policy="random"),
        variant("head-tail", "first channels up, last channels down", policy="head-tail"),
        variant(
            "l2", "squared distance of features instead of relations", relation_weight=0.0, feature_weight=1.0
        ),
        variant("rates-as-released", "learning rates after pre-scaling, as released", prescaled_rates=True),
        variant(
            "corrections-times-4",
            "corrections alone at four times the rate",
            low_rank_rate=4 * TRAINED.low_rank_rate,
        ),
        variant(
            "ranges-times-4",
            "input ranges alone at four times the rate",
            activation_rate=4 * TRAINED.activation_rate,
        ),
        *(variant(f"window-{n}", f"window of {n}", window=n) for n in (1, 3, 4)),
        *(variant(f"temperature-{t:g}", f"temperature {t:g}", temperature=t) for t in (0.1, 0.3, 3.0)),
    ]
    return {recipe.name: recipe for recipe in listed}


def cells(settings: Iterable[str], names: Iterable[str]) -> list[Cell]:
    """Cells of these settings and recipes."""
    return [
        Cell(setting=setting, recipe=name, seed=SEED) for setting, name in itertools.product(settings, names)
    ]


def main() -> None:
    """Compute what is missing until the time is up, and write what is there."""
    asked = options(__doc__, "ablations")
    recipes = variants()
    settings = asked.settings.split(",") if asked.settings else list(SETTINGS)
    names = asked.only.split(",") if asked.only else list(recipes)
    planned = cells(settings, names)
    scale, folder = Scale(), asked.run
    if asked.quick:
        scale, folder, planned = QUICK, asked.run / "quick", planned[:2]
    files = [RESULTS / f"{name}.csv" for name in (asked.name.replace("ablations", "headline"), asked.name)]
    bench = Bench(folder, scale, recipes, asked.model, () if asked.fresh or asked.quick else files)
    measure_cells(bench, planned, asked.minutes)
    kept = [cell["setting"] for cell in read_cells(files[1])]  # asked for in an earlier call
    grid = planned if asked.quick else cells(dict.fromkeys([*SETTINGS, *settings, *kept]), recipes)
    measured = [entry for cell in grid if (entry := bench.kept(cell)) is not None]
    figures = {"cells": Figure(len(measured), f"of {len(grid)}")}
    for entry in measured:
        key = f"{entry['setting']}_{entry['recipe']}".lower().replace("-", "_").replace(".", "")
        figures[f"{key}_fid_real"] = Figure(entry["fid_real"], "FID")
        figures[f"{key}_fid_teacher"] = Figure(entry["fid_teacher"], "FID to teacher")
        figures[f"{key}_psnr_db"] = Figure(entry["psnr_db"], "dB")
    notes = [json.dumps(asdict(scale)), *(f"{recipe.name}: {recipe.differs}" for recipe in recipes.values())]
    repeats = {f"{e['setting']}-{e['recipe']}": [e["fid_real"]] for e in measured}
    record(asked.name, figures=figures, repeats=repeats, seed=SEED, notes=notes, folder=RESULTS)
    write_cells(measured, (folder if asked.quick else RESULTS) / f"{asked.name}.csv")


if __name__ == "__main__":
    main()
