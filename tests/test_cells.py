"""What the cells of headline and ablations keep on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import ablations
from benchmarks._cell_files import read_cells, write_cells
from benchmarks._cells import QUICK, Bench, Cell, Scale
from benchmarks._drawn import kept_samples
from benchmarks._record import RESULTS
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.recipes import RECIPES
from mpqdm_core.sampling import Samples


@pytest.mark.parametrize("labels", [np.array([2, 0]), None])
def test_kept_pictures_are_those_that_were_drawn(tmp_path, labels):
    rng, sampler = np.random.default_rng(0), SamplerSettings(num_inference_steps=2, guidance_scale=1.0)
    drawn = Samples(
        images=rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        latents=rng.standard_normal((2, 4, 2, 2)).astype(np.float32),
        seeds=np.array([7, 9]), labels=labels, settings=sampler, timesteps=np.array([501, 1]),
        trajectory=None, predictions=None, x0=None,
    )  # fmt: skip
    path = tmp_path / "drawn.npz"
    kept_samples(path, sampler, lambda: drawn)
    again = kept_samples(path, sampler, lambda: pytest.fail("drawn a second time"))
    assert again.content_hash == drawn.content_hash and again.settings == drawn.settings
    np.testing.assert_array_equal(again.timesteps, drawn.timesteps)
    assert (again.labels is None) == (labels is None)
    assert labels is None or again.labels.tolist() == labels.tolist()


def entry(**figures):
    return {"setting": "W2A4", "recipe": "ours", "seed": 0, "made_of": "00120e10", **figures}


def test_cells_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "cells.csv"
    cells = [
        entry(fid_real=1 / 3, losses={"task before": 0.1, "task after": 0.01}),
        {**entry(fid_real=2.5, losses={}), "seed": 1},
    ]
    write_cells(cells, path)
    first, second = read_cells(path)
    assert first == cells[0] and isinstance(first["seed"], int)
    assert {"losses": {}, **second} == cells[1]  # what a cell does not have is not there


def test_no_file_has_no_cells(tmp_path):
    assert read_cells(tmp_path / "none.csv") == []


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "run", QUICK, RECIPES, published=[tmp_path / "cells.csv"])


CELL = Cell(setting="W2A4", recipe="ours", seed=0)


def test_a_published_cell_counts_while_what_decides_it_is_the_same(bench, tmp_path):
    assert bench.kept(CELL) is None
    write_cells([{**entry(fid_real=2.5), "made_of": bench.made_of(CELL)}], tmp_path / "cells.csv")
    again = Bench(tmp_path / "run", QUICK, RECIPES, published=[tmp_path / "cells.csv"])
    assert again.kept(CELL)["fid_real"] == 2.5
    for scale, recipes in [
        (replace(QUICK, steps=3), RECIPES),
        (
            QUICK,
            {
                "ours": replace(
                    RECIPES["ours"], quantization=replace(RECIPES["ours"].quantization, grid="affine")
                )
            },
        ),
    ]:
        other = Bench(tmp_path / "run", scale, recipes, published=[tmp_path / "cells.csv"])
        assert other.kept(CELL) is None


def test_a_cell_of_the_run_folder_counts_while_what_decides_it_is_the_same(bench):
    path = bench.path(CELL, ".json")
    path.write_text(json.dumps(entry(fid_real=2.5)))
    assert bench.kept(CELL) is None
    path.write_text(json.dumps({**entry(fid_real=2.5), "made_of": bench.made_of(CELL)}))
    assert bench.kept(CELL)["fid_real"] == 2.5


def test_a_cell_killed_after_its_training_is_not_trained_again(bench, monkeypatch):
    cell = replace(CELL, recipe="efficientdm")
    trained, losses = bench.student(cell)
    again = Bench(bench.folder, QUICK, RECIPES)
    monkeypatch.setattr("benchmarks._cells.finetune", lambda *a, **k: pytest.fail("trained a second time"))
    found, found_losses = again.student(cell)
    assert (found.content_hash, found_losses) == (trained.content_hash, losses)
    longer = Bench(bench.folder, replace(QUICK, steps=3), RECIPES)
    with pytest.raises(pytest.fail.Exception, match="trained a second time"):
        longer.student(cell)


def test_titles_do_not_decide_figures(bench, tmp_path):
    renamed = {"ours": replace(RECIPES["ours"], title="another", differs="in words")}
    assert Bench(tmp_path / "run", QUICK, renamed).made_of(CELL) == bench.made_of(CELL)


@pytest.mark.parametrize(("name", "recipes"), [("headline", RECIPES), ("ablations", ablations.variants())])
def test_published_cells_are_those_of_today_s_recipes_and_model(name, recipes):
    cells = read_cells(RESULTS / f"{name}.csv")
    assert cells
    bench = Bench(RESULTS, Scale(), recipes, published=[RESULTS / f"{name}.csv"])
    for found in cells:
        cell = Cell(setting=found["setting"], recipe=found["recipe"], seed=found["seed"])
        assert bench.kept(cell) == found, f"measure {cell.key} again"
