import json
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

sys.path.append(str(Path(__file__).parents[1] / "board"))
from board_runs import digest, make, plan, png

from mpqdm_core.board.shelf import Library, Shelf
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.sweep import SweepSettings
from mpqdm_core.errors import Cancelled, SettingsError
from pages import _ablation_earlier, _ablation_store, _ablation_sweep, _ablation_work, ablation
from pages import _ablation_show as showing
from pages._ablation_builder import read_sweep, widget_values
from pages._ablation_work import missing_cells
from pages._session import workspace

FACTORS = (["uniform", "optimal"], "3, 4", [8], ["none"], [True], "0")
WIDGETS = (*FACTORS, ["sensitivity"], ["model"], ["mid-rise"], 8, 60)
VISITOR = SimpleNamespace(session_hash="one")


@pytest.fixture(autouse=True)
def runs_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(_ablation_store._text, "ASSETS", tmp_path / "assets")
    return tmp_path / "runs"


@pytest.fixture
def kept():
    """Two runs of one's own and one that is shipped."""
    held = _ablation_store.library(VISITOR)
    shipped = RunStore(held.shelf.folder / "source")
    shipped.add(*make(1, bits=2.0))
    held.shelf.write(shipped.runs(), shipped)
    for number in (2, 3):
        held.store.add(*make(number, bits=float(number), psnr=(20.0 + number, 22.0 + number)))
    return [make(number)[0].id for number in (1, 2, 3)]


def changed(**values):
    names = ("policies", "weight_bits", "activation_bits", "finetunings", "relations", "seeds")
    return [values.get(name, value) for name, value in zip(names, WIDGETS, strict=False)] + list(WIDGETS[6:])


def test_the_widgets_are_a_sweep():
    found = read_sweep(*changed(weight_bits="2; 2.5 2.5", activation_bits=["full", 4], seeds="0,1"))
    assert found.average_bits == (2.0, 2.5) and found.activation_bits == (None, 4) and found.seeds == (0, 1)
    assert read_sweep(*WIDGETS) == SweepSettings()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"policies": []}, "tick at least one policy"),
        ({"activation_bits": []}, "tick at least one number of activation bits"),
        ({"weight_bits": "three"}, "average weight bits must be numbers separated by commas, got 'three'"),
        ({"weight_bits": " "}, "average weight bits must be given"),
        ({"weight_bits": "12"}, "from 1 to 8"),
        ({"seeds": "1e9"}, "the seeds must be numbers"),
    ],
)
def test_what_is_no_sweep_is_said_before_anything_is_computed(values, words):
    with pytest.raises(SettingsError, match=words):
        read_sweep(*changed(**values))
    told, button = ablation.on_plan(VISITOR, None, *changed(**values))
    assert words in told.replace("&#x27;", "'") and button.interactive is False


def test_the_plan_says_how_many_cells_and_how_long():
    told, button = ablation.on_plan(VISITOR, None, *WIDGETS)
    assert told.count("4 cells. About") == 1 and button.value == "Compute 4 cells" and button.interactive


def test_cells_kept_already_are_not_counted_again():
    work, settings = workspace(None), SweepSettings()
    cell = settings.cells()[0]
    model = _ablation_work.model_hash(work)
    same = make(1, settings={**asdict(cell), "pictures": 8}, hashes={"model": model or ""})[0]
    if model is not None:
        assert missing_cells(work, settings, [same]) == settings.cells()[1:]
    others = (
        {"hashes": {"model": "another"}},
        {"settings": {**same.settings, "pictures": 9}},
        {"state": "failed"},
    )
    for other in others:
        assert missing_cells(work, settings, [replace(same, **other)]) == settings.cells()


def test_the_table_shows_ones_own_and_the_shipped_and_what_waits(kept):
    held = _ablation_store.library(VISITOR)
    shown = json.loads(_ablation_sweep.board_of(held, {"baseline": kept[1]}, SweepSettings().cells()[:1]))
    by_id = {run["id"]: run for run in shown["runs"]}
    assert [by_id[name]["own"] for name in kept] == [False, True, True]
    assert shown["baseline"] == kept[1] and by_id[kept[1]]["change"] == {}
    assert by_id[kept[2]]["change"]["psnr_db"][0] == pytest.approx(1.0)  # 23, 25 against 22, 24
    assert by_id["waiting-0"]["settings"]["policy"] == "uniform" and by_id["waiting-0"]["state"] == "waiting"
    assert [info["name"] for info in shown["metrics"]] == ["psnr_db", "effective_bits", "size_mib"]


def test_pictures_come_a_row_a_seed_with_full_precision_once(kept):
    held = _ablation_store.library(VISITOR)
    columns = showing.columns(held, {"chosen": [kept[2], kept[0]], "baseline": kept[1]})
    assert [run.id for run in columns] == [kept[1], kept[2], kept[0]]
    sheets = json.loads(showing.sheets(held, columns))
    assert sheets["columns"][0]["title"] == "full precision"
    assert len(sheets["columns"]) == 4 and [row["name"] for row in sheets["rows"]] == ["cat", "house"]
    first_shown = showing.columns(held, {"chosen": [], "shown": kept})
    assert [run.id for run in first_shown] == kept


def test_two_runs_are_compared_layer_by_layer(kept):
    held = _ablation_store.library(VISITOR)
    files = (png(9), png(0), plan(4, 5, 3, 2).to_json().encode())
    run = replace(make(9)[0], plan=digest(files[2]), title="<b>other</b>")
    held.store.add(run, files)
    figure, words = showing.layers(held, held.chosen([kept[1], run.id]))
    assert "2 of 4 channels" in words and "1 more, 1 fewer" in words and "<b>" not in words
    assert json.loads(figure)["data"][1]["x"] == [4.0, 4.0]
    assert "Tick two runs" in showing.layers(held, held.chosen(kept[:1]))[1]


def test_the_scatter_has_intervals_and_the_front(kept):
    held = _ablation_store.library(VISITOR)
    figure = json.loads(showing.scatter(held.runs(), "effective_bits", "psnr_db", kept[2]))
    front, points = figure["data"]
    assert front["x"] == [2.25, 3.25] or front["x"] == [2.25, 2.25, 3.25]
    assert sorted(points["customdata"]) == sorted(kept)
    place = points["customdata"].index(kept[2])
    assert points["error_y"]["arrayminus"][place] == pytest.approx(1.0)
    assert points["marker"]["size"][place] > points["marker"]["size"][place - 1]
    assert showing.scatter((), "effective_bits", "psnr_db", None) == ""


@pytest.mark.parametrize("kind", ["html", "csv", "json", "tex", "zip"])
def test_every_format_holds_the_ticked_runs(kept, kind):
    button = ablation.on_export({"chosen": kept[:2], "shown": kept}, kind, VISITOR)
    path = Path(button.value if isinstance(button.value, str) else button.value["path"])
    assert path.suffix == f".{kind}" and button.visible
    if kind == "zip":
        assert sum(name.startswith("runs/") for name in zipfile.ZipFile(path).namelist()) == 2
    else:
        words = path.read_text(encoding="utf-8")
        assert "number 2" in words or kind == "tex"
        assert "number 3" not in words


def test_a_script_is_of_one_run(kept):
    with pytest.raises(gr.Error, match="tick exactly one, not 2"):
        ablation.on_export({"chosen": kept[:2], "shown": kept}, "py", VISITOR)
    button = ablation.on_export({"chosen": kept[:1], "shown": kept}, "py", VISITOR)
    path = button.value if isinstance(button.value, str) else button.value["path"]
    compile(Path(path).read_text(encoding="utf-8"), "script", "exec")
    with pytest.raises(gr.Error, match="no runs to export"):
        ablation.on_export({"chosen": [], "shown": []}, "csv", VISITOR)


def test_a_zip_is_read_again_and_another_file_is_a_sentence(kept, tmp_path, monkeypatch):
    button = ablation.on_export({"chosen": kept, "shown": kept}, "zip", VISITOR)
    path = button.value if isinstance(button.value, str) else button.value["path"]
    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path / "elsewhere"))
    _, words = ablation.on_add(path, {"baseline": None}, VISITOR)
    assert "3 runs added" in words
    wrong = tmp_path / "x.zip"
    wrong.write_bytes(b"nothing")
    with pytest.raises(gr.Error, match="no zip of runs"):
        ablation.on_add(str(wrong), {"baseline": None}, VISITOR)


def test_only_ones_own_runs_are_deleted(kept):
    _, words = ablation.on_delete({"chosen": kept[:2], "baseline": None}, VISITOR)
    assert "1 runs deleted" in words
    assert [run.id for run in _ablation_store.library(VISITOR).runs()] == [kept[0], kept[2]]


def test_visitors_of_a_shared_server_do_not_meet(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/space")
    other = SimpleNamespace(session_hash="../one")
    mine, theirs = _ablation_store.library(VISITOR), _ablation_store.library(other)
    mine.store.add(*make(1))
    assert len(_ablation_store.library(VISITOR).runs()) == 1 and theirs.runs() == ()
    assert mine.store.folder.parent == theirs.store.folder.parent != mine.store.folder
    _ablation_store.forget(VISITOR)
    assert not mine.store.folder.exists() and mine.runs() == ()


def test_what_the_table_says_is_checked():
    event = SimpleNamespace(_data={"chosen": ["../x", make(1)[0].id, 3], "shown": ["<b>"]})
    found = ablation.on_rows({"baseline": None}, event)
    assert found == {"baseline": None, "chosen": [make(1)[0].id], "shown": []}
    pinned, _ = ablation.on_pin({"chosen": []}, SimpleNamespace(_data={"baseline": "x" * 32}), VISITOR)
    assert pinned["baseline"] is None


def test_a_sweep_fills_the_table_cell_by_cell(monkeypatch):
    def fill(work, settings, store, on_cell, report):
        for number in (1, 2):
            report(number, 2, f"cell {number}")
            on_cell(store.add(*make(number)))
        return SimpleNamespace(computed=2, failed=1)

    monkeypatch.setattr(_ablation_sweep, "fill_sweep", fill)
    yielded = list(ablation.on_start(VISITOR, None, {"baseline": None}, *WIDGETS))
    states = [
        [run["state"] for run in json.loads(table.props["board"])["runs"]]
        for *_, table in yielded
        if isinstance(table, gr.HTML)
    ]
    assert states[0] == ["waiting"] * 4 and states[-1] == ["done"] * 2 + ["waiting"] * 2
    assert "2 cells computed" in yielded[-1][0] and "1 failed" in yielded[-1][0]


def test_a_stopped_sweep_keeps_its_cells(monkeypatch):
    def fill(work, settings, store, on_cell, report):
        on_cell(store.add(*make(1)))
        raise Cancelled("Stopped.")

    monkeypatch.setattr(_ablation_sweep, "fill_sweep", fill)
    with pytest.raises(gr.Error, match="Stopped"):
        list(ablation.on_start(VISITOR, None, {"baseline": None}, *WIDGETS))
    assert len(_ablation_store.library(VISITOR).runs()) == 1


def test_a_damaged_store_is_said_and_the_shipped_runs_are_there(kept, runs_folder):
    (runs_folder / "runs.sqlite").write_bytes(b"garbage" * 100)
    table, words = ablation.on_open({"baseline": None}, VISITOR)
    assert "was damaged" in words and len(json.loads(table.props["board"])["runs"]) == 3


def test_ones_own_run_goes_before_a_shipped_one(tmp_path):
    store, shelf = RunStore(tmp_path / "own"), Shelf(tmp_path / "shelf")
    store.add(*make(1))
    shelf.write(store.runs(), store)
    store.note(make(1)[0].id, "mine")
    assert [run.note for run in Library(store, shelf).runs()] == ["mine"]
    store.remove([make(1)[0].id])
    assert [run.note for run in Library(store, shelf).runs()] == [""]


def test_an_earlier_sweep_is_chosen_again():
    settings = SweepSettings(
        average_bits=(2.5, 4.0),
        activation_bits=(None, 4),
        finetunings=("none", "ours"),
        relations=(True, False),
    )
    assert read_sweep(*widget_values(settings)) == settings
    assert _ablation_earlier.on_list(VISITOR).visible is False
    store = _ablation_store.library(VISITOR).store
    store.keep_sweep("a", settings.as_dict())
    store.keep_sweep("b", {"policies": 3})
    listed = _ablation_earlier.on_list(VISITOR)
    assert listed.visible and [name for _, name in listed.choices] == ["a"]
    assert listed.choices[0][0].endswith("uniform, optimal at 2.5, 4 bits")
    assert _ablation_earlier.on_restore("a", VISITOR) == widget_values(settings)
    with pytest.raises(gr.Error, match="not kept any more"):
        _ablation_earlier.on_restore("c", VISITOR)
