"""Sweeps and kept runs on the command line."""

import csv
import json
import sys

import pytest

from mpqdm_core.command_line import main
from tests.core.tiny_models import tiny_pipeline


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    tiny_pipeline("class-conditional-ldm").save_pretrained(folder / "model")
    return folder


@pytest.fixture
def call(work, capsys):
    def run(*arguments):
        code = main([*map(str, arguments), "--json", "--quiet"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]) if printed.out else None, printed.err

    return run


def test_a_sweep_is_computed_once_and_its_runs_travel(call, work, tmp_path):
    here, there = work / "here", tmp_path / "there"
    sweep = ["sweep", work / "model", "--bits", 3, "--pictures", 2, "--runs", here]
    code, first, _ = call(*sweep)
    assert (code, first["computed"], first["found"]) == (0, 2, 0)
    assert {run["settings"]["policy"] for run in first["runs"]} == {"uniform", "optimal"}
    again = call(*sweep)[1]
    assert (again["computed"], again["found"]) == (0, 2)
    assert again["runs"] == first["runs"]

    assert call("runs", "--runs", here, "--export", tmp_path / "runs.zip")[0] == 0
    taken = call("runs", "--runs", there, "--import", tmp_path / "runs.zip")[1]
    assert taken["runs"] == first["runs"]

    one = first["runs"][0]["id"]
    assert call("runs", "--runs", there, "--only", one[:8], "--export", tmp_path / "one.csv")[0] == 0
    with (tmp_path / "one.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and one in rows[0].values()

    call("runs", "--runs", there, "--only", one[:8], "--forget")
    assert [run["id"] for run in call("runs", "--runs", there)[1]["runs"]] == [first["runs"][1]["id"]]
    assert len(call("runs", "--runs", here)[1]["runs"]) == 2


def test_forgetting_and_exporting_ask_for_names(call, tmp_path):
    code, _, said = call("runs", "--runs", tmp_path, "--forget")
    assert code == 1 and "--forget needs --only" in said
    code, _, said = call("runs", "--runs", tmp_path, "--export", tmp_path / "runs.doc")
    assert code == 1 and "not 'runs.doc'" in said
    code, _, said = call("runs", "--runs", tmp_path, "--only", "abc")
    assert code == 1 and "no run's id starts with 'abc'" in said


def test_an_engine_that_is_not_there_is_said_before_the_model_is_loaded(call, monkeypatch):
    code, _, said = call("sweep", "no-such-model", "--address", "ray://head:10001")
    assert code == 1 and "--address is of a Ray cluster: it needs --engine ray" in said
    for engine in ("ray", "accelerate"):
        monkeypatch.setitem(sys.modules, engine, None)
        code, _, said = call("sweep", "no-such-model", "--engine", engine)
        assert code == 1 and f"the engine {engine} needs a package that is not installed" in said


def test_the_help_says_how_to_launch(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    said = capsys.readouterr().out
    assert "torchrun --nproc-per-node 4 -m mpqdm_core sweep MODEL --engine accelerate" in said
    assert "--engine ray --address ray://head:10001" in said
