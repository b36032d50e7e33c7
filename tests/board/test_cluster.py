"""A sweep on a Ray cluster of this machine: two workers, of which some die."""

import os
import signal
import sys
from pathlib import Path

import pytest
from engine_work import SETTINGS, Work, begun, id_of, laboratory

from mpqdm_core.board import cluster
from mpqdm_core.board.cluster import RayEngine
from mpqdm_core.board.engine import run_sweep
from mpqdm_core.board.store import RunStore
from mpqdm_core.errors import Cancelled, SettingsError

ROOT = Path(__file__).parents[2]
IDS = {id_of(cell): cell.average_bits for cell in SETTINGS.cells()}


@pytest.fixture(scope="module")
def two_workers():
    ray = pytest.importorskip("ray", reason="Ray is optional: requirements-cluster.txt")
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def states(store):
    return {IDS[run.id]: run.state for run in store.runs()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_worker_loses_nothing_and_the_store_fills_as_cells_come(two_workers, store, tmp_path):
    killed, kept = [], []

    def kill_the_one_that_waits(done, total, message):
        processes = begun(tmp_path, 3.0)
        if processes and not killed:
            killed.append(processes[0])
            os.kill(processes[0], signal.SIGKILL)
        kept.append(len(store.runs()))

    outcome = run_sweep(
        laboratory(), SETTINGS, store,
        engine=RayEngine(), worker=Work(tmp_path, waits=3.0), report=kill_the_one_that_waits,
    )  # fmt: skip
    assert (outcome.found, outcome.computed, outcome.failed) == (0, 6, 0)
    assert states(store) == dict.fromkeys(IDS.values(), "done")
    first, second = begun(tmp_path, 3.0)
    assert first == killed[0] and second != first  # begun again, by another process
    assert all(len(begun(tmp_path, bits)) == 1 for bits in IDS.values() if bits != 3.0)
    assert kept == sorted(kept) and len(set(kept)) > 2  # not all at the end
    assert all(run.metrics["psnr_db"].value == 10 * IDS[run.id] for run in store.runs())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cell_that_always_ends_its_worker_is_given_up_in_its_place(two_workers, store, tmp_path):
    engine = RayEngine(retries=1)
    outcome = run_sweep(laboratory(), SETTINGS, store, engine=engine, worker=Work(tmp_path, dies=5.0))
    assert (outcome.computed, outcome.failed) == (5, 1)
    assert [bits for bits, state in states(store).items() if state == "failed"] == [5.0]
    failed = next(run for run in store.runs() if run.state == "failed")
    assert failed.error.startswith("its worker was lost 2 times") and failed.settings["policy"] == "uniform"
    assert len(begun(tmp_path, 5.0)) == 2
    again = run_sweep(laboratory(), SETTINGS, store, engine=engine, worker=Work(tmp_path))
    assert (again.found, again.computed, again.failed) == (5, 1, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_stop_ends_the_workers_and_keeps_what_is_done(two_workers, store, tmp_path):
    def stop_after_two(done, total, message):
        if len(store.runs()) >= 2 and begun(tmp_path, 4.0):
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        run_sweep(
            laboratory(), SETTINGS, store,
            engine=RayEngine(), worker=Work(tmp_path, waits=4.0), report=stop_after_two,
        )  # fmt: skip
    assert 2 <= len(store.runs()) < 6 and set(states(store).values()) == {"done"}
    outcome = run_sweep(laboratory(), SETTINGS, store, engine=RayEngine(), worker=Work(tmp_path))
    assert outcome.found + outcome.computed == 6 and outcome.failed == 0


def test_without_ray_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"engine ray needs .* requirements-cluster\.txt") as told:
        RayEngine().run(SETTINGS.cells(), Work(Path()), lambda cell, made: None, print)
    assert str(told.value) == cluster.MISSING
