import io
import pickle
import runpy
from dataclasses import asdict, replace

import numpy as np
import pytest
from board_lab import EFFORT, layer_shapes, small_laboratory
from PIL import Image

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board import precompute
from mpqdm_core.board.cells import finetuning_of, rounding_of
from mpqdm_core.board.costs import bit_operations, estimate
from mpqdm_core.board.engine import CellWork, run_sweep
from mpqdm_core.board.script import to_script
from mpqdm_core.board.shelf import Shelf
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import FINETUNINGS, Cell, Effort, SweepSettings, cell_id
from mpqdm_core.errors import Cancelled, LoadError, MpqdmError, SettingsError
from mpqdm_core.metrics import psnr_db
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.recipes import RECIPES
from mpqdm_core.sampling import sample

CELL = SweepSettings().cells()[-1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return small_laboratory(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path)


def test_every_combination_once_and_what_makes_no_difference_is_left_out():
    settings = SweepSettings(
        policies=("uniform", "optimal"),
        weightings=("none", "relative"),
        finetunings=("none", "ours"),
        relations=(True, False),
        average_bits=(3, 3.5),
    )
    cells = settings.cells()
    # uniform: no weightings (1) x fine-tuning (none, ours with, ours without: 3) x bits (2); optimal: twice
    assert len(cells) == len(set(cells)) == 6 + 12
    assert all(
        cell.weighting == "none" and cell.scope == "layer" for cell in cells if cell.policy == "uniform"
    )
    assert SweepSettings.from_dict(settings.as_dict()) == settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"policies": ()}, "policies must be one or more"),
        ({"policies": ("best",)}, "got \\['best'\\]"),
        ({"average_bits": (9.0,)}, "from 1 to 8"),
        ({"activation_bits": (1,)}, "activation_bits"),
        ({"seeds": (-1,)}, "seeds must be whole numbers"),
        ({"seeds": tuple(range(400))}, "1600 cells, at most 500"),
    ],
)
def test_a_sweep_that_cannot_be(values, words):
    with pytest.raises(SettingsError, match=words):
        SweepSettings(**values)


def test_a_document_that_is_no_sweep():
    for wrong in ({"policies": 3}, {"effort": {"hours": 3}}, {"seeds": ["a"]}):
        with pytest.raises(LoadError, match="not a sweep"):
            SweepSettings.from_dict(wrong)


def test_an_id_depends_on_everything_that_changes_a_number_and_on_nothing_else():
    base = {"model_hash": "a", "calibration_hash": "b"}
    first = cell_id(CELL, EFFORT, **base)
    assert first == cell_id(CELL, replace(EFFORT, steps=99), **base)  # nothing is trained
    trained = replace(CELL, finetuning="ours")
    others = {
        first,
        cell_id(CELL, EFFORT, **{**base, "model_hash": "c"}),
        cell_id(CELL, EFFORT, **{**base, "calibration_hash": "c"}),
        cell_id(CELL, replace(EFFORT, pictures=3), **base),
        cell_id(replace(CELL, seed=1), EFFORT, **base),
        cell_id(trained, EFFORT, **base),
        cell_id(trained, replace(EFFORT, steps=99), **base),
    }
    assert len(others) == 7


def test_fine_tunings_are_the_recipes_that_train():
    assert ("none", *(name for name, recipe in RECIPES.items() if recipe.finetuning)) == FINETUNINGS


def test_trd_is_the_relation_loss():
    off = finetuning_of(replace(CELL, finetuning="mpqdm-corrected", relation=False), EFFORT)
    on = finetuning_of(replace(CELL, finetuning="mpqdm-corrected", relation=True), EFFORT)
    assert (off.relation_weight, on.relation_weight) == (0.0, 1.0)
    assert replace(off, relation_weight=1.0) == on
    assert (
        finetuning_of(replace(CELL, finetuning="efficientdm", relation=True), EFFORT).relation_weight == 1.0
    )
    assert finetuning_of(CELL, EFFORT) is None


def test_a_cell_rounds_as_its_recipe_with_its_own_grid():
    assert rounding_of(CELL) == QuantSettings(activation_bits=8, grid="mid-rise")
    rounded = rounding_of(replace(CELL, finetuning="efficientdm", activation_bits=4))
    assert rounded.prescale_alpha is None and rounded.grid == "mid-rise" and rounded.activation_bits == 4


def test_a_sweep_fills_the_store_goes_on_after_a_stop_and_keeps_failures(lab, store, monkeypatch):
    settings = SweepSettings(policies=("uniform", "optimal"), average_bits=(2.0, 4.0), effort=EFFORT)
    cells, shown = settings.cells(), []

    def stop_in_the_third(done, total, message):
        if message.startswith("cell 3") and "pictures" in message:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        run_sweep(lab, settings, store, on_cell=shown.append, report=stop_in_the_third)
    assert {run.title for run in store.runs()} == {cell.title for cell in cells[:2]}
    assert [run.id for run in shown] == [lab.id_of(cell) for cell in cells[:2]]

    compute = lab.compute

    def one_breaks(cell, *rest):
        if cell == cells[2]:
            raise ZeroDivisionError("by hand")
        return compute(cell, *rest)

    with monkeypatch.context() as changed:
        changed.setattr(lab, "compute", one_breaks)
        outcome = run_sweep(lab, settings, store)
    assert (outcome.found, outcome.computed, outcome.failed) == (2, 1, 1)
    failed = next(run for run in store.runs() if run.state == "failed")
    assert (
        failed.error == "unexpected ZeroDivisionError: by hand"
        and failed.settings["policy"] == cells[2].policy
    )
    outcome = run_sweep(lab, settings, store)
    assert (outcome.found, outcome.computed, outcome.failed) == (3, 1, 0)
    assert {run.state for run in store.runs()} == {"done"} and len(store.runs()) == 4
    assert [name for name, _ in store.sweeps()] == [outcome.id]

    run = store.get(lab.id_of(cells[0]))  # uniform, 2 bits: everything it says, computed another way
    drawn = np.frombuffer(store.blobs.get(run.pictures.drawn), dtype=np.uint8)
    assert drawn[:4].tobytes() == b"\x89PNG"
    assert run.metrics["nominal_bits"].value == 2.0
    reference = sample(lab.denoiser, labels=[0, 1], seeds=run.pictures.seeds)
    sheet = np.asarray(Image.open(io.BytesIO(store.blobs.get(run.pictures.drawn))))
    pair = np.stack(np.split(sheet, 2, axis=1))
    psnr = psnr_db(reference.images, pair)
    assert run.metrics["psnr_db"].values == pytest.approx(psnr, rel=1e-5)
    assert run.metrics["psnr_db"].value == pytest.approx(psnr.mean())
    assert run.pictures.names == ("cat", "house")
    assert len(run.curves["latent_snr_db"].x) in (2, 3)  # the first latent is the noise itself: no error yet


@pytest.mark.parametrize("finetuning", ["none", "mpqdm-corrected"])
def test_the_script_makes_the_run_again(lab, store, tmp_path, capsys, finetuning):
    settings = SweepSettings(
        policies=("optimal",), average_bits=(2.5,), finetunings=(finetuning,), effort=EFFORT
    )
    run_sweep(lab, settings, store)
    run = store.runs()[0]
    if finetuning != "none":
        assert run.curves["loss"].x == (1.0, 2.0)
        assert run.settings["relation"] is True and run.seconds["finetune"] > 0
    path = tmp_path / "again.py"
    path.write_text(to_script(run), encoding="utf-8")
    runpy.run_path(str(path), run_name="__main__")
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert all(lines[name] == "the same" for name in ("model", "calibration", "plan"))
    for name in ("psnr_db", "latent_snr_db", "gbops", "on_disk_bits", "file_bytes"):
        made, recorded = lines[name].split(", recorded ")
        assert float(made) == pytest.approx(float(recorded), rel=1e-4)
        assert float(recorded) == pytest.approx(run.metrics[name].value, rel=1e-5)


def test_a_worker_can_be_sent_to_another_process(lab):
    work = CellWork(source=lab.denoiser.source, effort=EFFORT, sweep="s")
    again = pickle.loads(pickle.dumps(work))
    assert again == work


def test_bit_operations_by_hand(lab):
    layers = lab.denoiser.quantizable_layers
    plan = BitPlan.uniform(*layer_shapes(lab.denoiser), 3)
    counted = bit_operations(lab.denoiser.layers, plan, QuantSettings(activation_bits=4))
    by_hand = sum(layer.macs for layer in layers) * 3 * 4
    for layer in lab.denoiser.exempt_layers:
        by_hand += layer.macs * (64 if layer.exempt == "8-bit" else 256)
    assert counted == by_hand


def test_kept_cells_make_the_estimate_better():
    from board_runs import make

    cells = SweepSettings(policies=("uniform",), average_bits=(3.0, 4.0)).cells()
    guess = estimate(cells, Effort(pictures=10), macs=4_000_000_000, calls=2)
    assert guess.seconds > 2 * 10 * 2 and guess.low < guess.seconds < guess.high
    assert "first guess" in guess.basis
    kept = make(seconds={"draw": 1.0, "quantize": 3.0}, settings={**asdict(cells[0]), "pictures": 2})[0]
    better = estimate(cells, Effort(pictures=10), macs=4_000_000_000, calls=2, history=[kept])
    assert better.seconds == pytest.approx(2 * 3.0 + (2 + 1) * 10 * 0.5)  # two cells and a reference
    assert "1 kept cells" in better.basis
    assert estimate((), Effort(), macs=1, calls=1).seconds == 0
    assert isinstance(cells[0], Cell)


def test_the_shipped_board_is_written_once_and_not_too_large(lab, store, tmp_path, monkeypatch):
    cells = SweepSettings(policies=("uniform",), average_bits=(4.0,), effort=EFFORT).cells()
    shelf = Shelf(tmp_path / "board")
    size = precompute.precompute(lab, cells, store, shelf)
    assert size == sum(path.stat().st_size for path in shelf.folder.rglob("*") if path.is_file())
    run = shelf.runs()[0]
    assert run.title == "uniform W4A8" and all(shelf.blobs.has(name) for name in run.blobs)
    monkeypatch.setattr(lab, "compute", None)  # nothing is computed again
    (shelf.blobs.folder / "00").mkdir(exist_ok=True)
    (shelf.blobs.folder / "00" / "left-over").write_bytes(b"of another model")
    assert precompute.precompute(lab, cells, store, shelf) == size
    monkeypatch.setattr(precompute, "MAX_BYTES", 100)
    with pytest.raises(MpqdmError, match="at most 100 are shipped"):
        precompute.precompute(lab, cells, store, shelf)
    (shelf.folder / "runs.json").write_text("[{]")
    with pytest.raises(LoadError, match="cannot be read"):
        shelf.runs()
    assert Shelf(tmp_path / "nowhere").runs() == ()
    assert 20 <= len(precompute.planned()) <= 60
