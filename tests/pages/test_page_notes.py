import json
import sys
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

sys.path.append(str(Path(__file__).parents[1] / "board"))
from board_runs import make

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.costs import bit_operations
from mpqdm_core.board.store import RunStore
from pages import _ablation_notes as notes
from pages import _ablation_store, _budget_keep, _budget_solve
from pages._session import workspace
from pages._work import quant_settings

VISITOR = SimpleNamespace(session_hash="one")


@pytest.fixture(autouse=True)
def held(monkeypatch, tmp_path):
    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(_ablation_store._text, "ASSETS", tmp_path / "assets")
    return _ablation_store.library(VISITOR)


def test_a_note_is_written_shown_and_taken_away(held):
    for number in (1, 2):
        held.store.add(*make(number))
    one, two = (run.id for run in held.store.runs())
    table, words = notes.on_write({"chosen": [one], "baseline": None}, " looks <b>sharp</b> ", VISITOR)
    assert "written on 1 run." in words
    shown = {run["id"]: run["note"] for run in json.loads(table.props["board"])["runs"]}
    assert shown == {one: "looks <b>sharp</b>", two: ""}
    assert notes.on_choice({"chosen": [one]}, "", VISITOR) == "looks <b>sharp</b>"
    assert notes.on_choice({"chosen": [two]}, "looks <b>sharp</b>", VISITOR) == ""
    for chosen, text in (([], ""), ([one, two], ""), ([two], None), ([one], "being written")):
        assert notes.on_choice({"chosen": chosen}, text, VISITOR) == gr.skip()
    assert "taken from 2 runs" in notes.on_write({"chosen": [one, two]}, None, VISITOR)[1]
    assert [run.note for run in held.store.runs()] == ["", ""]


def test_shipped_runs_have_no_notes_of_visitors(held, tmp_path):
    source = RunStore(tmp_path / "source")
    source.add(*make(1))
    held.shelf.write(source.runs(), source)
    for chosen in ([], [make(1)[0].id]):
        with pytest.raises(gr.Error, match="tick runs of your own"):
            notes.on_write({"chosen": chosen}, "mine", VISITOR)


def test_a_plan_is_kept_once_with_what_it_costs(held):
    with pytest.raises(gr.Error, match="no plan yet"):
        _budget_keep.on_keep(VISITOR, None)
    work = workspace(None)
    choice = _budget_solve.read_choice(3, 8, False, range(1, 9), "optimal", "sensitivity", "model", {})
    solved = _budget_solve.solve(work.key, choice)
    assert "Kept as a run, optimal W3A8" in _budget_keep.on_keep(VISITOR, list(solved.key))
    (run,) = held.store.runs()
    plan = BitPlan.from_json(held.read(run.plan).decode())
    assert (plan.bits == solved.allocation.plan.bits).all() and run.hashes["plan"] == plan.content_hash
    assert run.metrics["predicted_error"].value == pytest.approx(solved.allocation.predicted_error)
    rounding = quant_settings(solved.table, 8)
    assert run.metrics["gbops"].value == pytest.approx(bit_operations(solved.layers, plan, rounding) / 1e9)
    held.store.note(run.id, "mine")
    assert "Kept already" in _budget_keep.on_keep(VISITOR, list(solved.key))
    assert [kept.note for kept in held.store.runs()] == ["mine"]
    other = _budget_solve.solve(
        work.key, _budget_solve.read_choice(3, 4, False, range(1, 9), "optimal", "sensitivity", "model", {})
    )
    _budget_keep.on_keep(VISITOR, list(other.key))
    assert len(held.store.runs()) == 2
