"""A sweep on two processes that a launcher starts, of which one dies."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine_work import SETTINGS, Work, begun, id_of, laboratory

from mpqdm_core.board.engine import run_sweep
from mpqdm_core.board.processes import MISSING, AccelerateEngine
from mpqdm_core.board.store import RunStore
from mpqdm_core.errors import SettingsError

HERE = Path(__file__).parent
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALL = [cell.average_bits for cell in SETTINGS.cells()]


def launch(folder, dies=0.0):
    command = [sys.executable, *LAUNCH, str(HERE / "launched_sweep.py"), str(folder), str(dies)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
@pytest.mark.timeout(2_000)
def test_two_processes_share_the_cells_and_the_same_command_does_what_a_dead_one_left(tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is optional: requirements-cluster.txt")
    ended = launch(tmp_path, dies=5.0)  # the fourth cell: the second one of the second process
    store = RunStore(tmp_path / "runs")
    kept = {run.settings["average_bits"] for run in store.runs()}
    assert ended.returncode != 0 and 3.0 in kept and 5.0 not in kept
    again = launch(tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "outcome").read_text().split() == [str(len(kept)), str(6 - len(kept)), "0"]
    assert {run.settings["average_bits"]: run.state for run in store.runs()} == dict.fromkeys(ALL, "done")
    assert len({begun(tmp_path, bits)[0] for bits in (2.0, 3.0)}) == 2  # two processes have begun
    assert all(len(begun(tmp_path, bits)) == (1 if bits in kept else 2) for bits in (3.0, 5.0))


def test_a_process_takes_every_nth_cell_of_the_list_that_the_first_one_has(monkeypatch, tmp_path):
    cells, waited = SETTINGS.cells(), []
    state = SimpleNamespace(
        process_index=1, num_processes=2, is_main_process=False, device="cpu",
        wait_for_everyone=lambda: waited.append(True),
    )  # fmt: skip

    def broadcast(values, from_process):
        assert from_process == 0
        values[0] = list(cells[:5])  # as the first process sent it

    fake = SimpleNamespace(PartialState=lambda cpu, timeout: state)
    monkeypatch.setitem(sys.modules, "accelerate", fake)
    monkeypatch.setitem(sys.modules, "accelerate.utils", SimpleNamespace(broadcast_object_list=broadcast))
    engine, store = AccelerateEngine(), RunStore(tmp_path / "runs")
    outcome = run_sweep(laboratory(), SETTINGS, store, engine=engine, worker=Work(tmp_path))
    assert {run.id for run in store.runs()} == {id_of(cells[1]), id_of(cells[3])}
    assert (outcome.found, outcome.computed) == (0, 2) and waited == [True] and not engine.is_first


def test_without_accelerate_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(SettingsError) as told:
        AccelerateEngine()
    assert str(told.value) == MISSING and "requirements-cluster.txt" in MISSING
