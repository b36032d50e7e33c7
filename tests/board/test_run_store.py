import json
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from board_runs import make

from mpqdm_core.board import schema
from mpqdm_core.board.blobs import StoreError
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.store import DATABASE, RunStore, default_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


@contextmanager
def files_of_at_most(size):
    """Every write past `size` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_comes_back_as_it_was_with_its_files(store):
    run, files = make()
    store.add(run, files)
    assert RunStore(store.folder).runs() == (run,)
    assert [store.blobs.get(name) for name in run.blobs] == list(files)


def test_looking_writes_nothing(store):
    assert store.runs() == () and store.sweeps() == () and store.get("0" * 32) is None
    assert not store.folder.exists()


def test_runs_come_by_time_and_the_same_id_replaces(store):
    for number in (2, 1):
        store.add(*make(number))
    again = make(1, note="better")[0]
    store.add(again)
    assert [run.id[-1] for run in store.runs()] == ["1", "2"]
    assert store.get(again.id).note == "better"


def test_contents_are_kept_once(store):
    store.add(*make(1))
    store.add(*make(2))  # the reference and the plan are the same
    assert len(list((store.folder / "blobs").glob("*/*"))) == 4


def test_removing_a_run_spares_the_files_of_others_and_of_those_being_written(store):
    first, second = make(1), make(2)
    store.add(*first)
    store.add(*second)
    fresh = store.blobs.put(b"being written")
    for path in (store.folder / "blobs").glob("*/*"):
        if path.name != fresh:
            os.utime(path, (0, 0))
    store.remove([first[0].id])
    assert store.runs() == (second[0],)
    assert all(store.blobs.has(name) for name in second[0].blobs) and store.blobs.has(fresh)
    assert not store.blobs.has(first[0].pictures.drawn)


def test_a_note_is_kept(store):
    run, files = make()
    store.add(run, files)
    store.note(run.id, "sharp eyes")
    assert store.get(run.id).note == "sharp eyes"


def test_a_run_whose_file_is_missing_is_refused(store):
    run, files = make()
    with pytest.raises(StoreError, match="names a file that is not there"):
        store.add(run, files[:1])
    assert store.runs() == ()


def test_a_changed_file_is_noticed(store):
    run, files = make()
    store.add(run, files)
    store.blobs.path(run.plan).write_bytes(b"{}")
    with pytest.raises(StoreError, match="contents do not match"):
        store.blobs.get(run.plan)


def test_there_is_a_limit(tmp_path):
    store = RunStore(tmp_path, max_runs=1)
    store.add(*make(1))
    with pytest.raises(StoreError, match="1 runs are kept, which is the limit"):
        store.add(*make(2))


@pytest.mark.parametrize("damage", ["header", "truncated", "middle", "nothing"])
def test_a_damaged_file_is_set_aside_and_no_run_is_lost(store, damage):
    for number in range(1, 30):
        store.add(*make(number))
    path = store.folder / DATABASE
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = path.read_bytes()
    broken = {
        "header": b"not a database at all" + data[21:],
        "truncated": data[: len(data) // 2],
        "middle": data[:4096] + b"\xff" * (len(data) - 8192) + data[-4096:],
        "nothing": b"\x00" * 100,
    }[damage]
    path.write_bytes(broken)
    again = RunStore(store.folder)
    assert len(again.runs()) == 29
    assert "was damaged" in again.notices[0] and "29 runs" in again.notices[0]
    assert [p.read_bytes() for p in store.folder.glob("*.damaged-*")] == [broken]
    assert RunStore(store.folder).runs() == again.runs()
    again.add(*make(99))
    assert len(again.runs()) == 30


def test_one_damaged_document_costs_one_run(store):
    store.add(*make(1))
    store.add(*make(2))
    with sqlite3.connect(store.folder / DATABASE) as connection:
        connection.execute("UPDATE runs SET document = '{' WHERE id = ?", (make(1)[0].id,))
    connection.close()
    assert store.runs() == (make(2)[0],)
    assert "is damaged and left out" in store.notices[0]


def test_a_full_disk_is_a_sentence_and_loses_nothing(store):
    first = make(1)[0]
    store.add(*make(1))
    large = make(2, error="x" * 2_000, note="y" * 500)
    with files_of_at_most(64), pytest.raises(StoreError, match=r"is full.*safe"):
        store.add(*large)
    with files_of_at_most(4096), pytest.raises(StoreError, match="full"):
        for number in range(3, 40):
            store.add(*make(number))
    assert first in store.runs() and store.get(large[0].id) is None
    assert list(store.folder.rglob("*.part")) == []
    store.add(*large)
    assert large[0] in store.runs()


def test_a_folder_that_cannot_be_written_is_a_sentence():
    with pytest.raises(StoreError, match=r"cannot write to .*MPQDM_RUNS"):
        RunStore("/proc/mpqdm-runs").add(*make())


def test_a_file_of_a_newer_version_is_left_alone(store):
    store.add(*make())
    with sqlite3.connect(store.folder / DATABASE) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="written by a newer version"):
        store.runs()


def test_an_older_file_is_migrated_with_its_runs(store, monkeypatch):
    store.add(*make())
    step = ("ALTER TABLE runs ADD COLUMN stars INTEGER NOT NULL DEFAULT 3",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    assert store.runs() == (make()[0],)
    with sqlite3.connect(store.folder / DATABASE) as connection:
        assert connection.execute("SELECT stars FROM runs").fetchall() == [(3,)]
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(store, monkeypatch):
    store.add(*make())
    steps = ("ALTER TABLE runs ADD COLUMN stars", "this is no SQL")
    with monkeypatch.context() as changed:
        changed.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, steps))
        with pytest.raises(StoreError, match="cannot be used"):
            store.runs()
    assert store.runs() == (make()[0],)


def test_processes_write_at_the_same_time(store):
    program = (
        "import sys; sys.path[:0] = sys.argv[2:4]; from board_runs import make\n"
        "from mpqdm_core.board.store import RunStore\n"
        "first = int(sys.argv[4])\n"
        "for number in range(first, first + 8): RunStore(sys.argv[1]).add(*make(number))\n"
    )
    places = [str(ROOT), str(Path(__file__).parent)]
    workers = [
        subprocess.Popen([sys.executable, "-c", program, str(store.folder), *places, str(first)])
        for first in (1, 21, 41)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert len(store.runs()) == 24 and store.notices == []


def test_the_folder_is_chosen_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    monkeypatch.delenv("MPQDM_RUNS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder().parent == tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "../../etc/passwd"}, "id must match"),
        ({"kind": "virus"}, "kind must be one of cell"),
        ({"format": 99}, "version 99"),
        ({"metrics": {"psnr_db": {"value": "1"}}}, "metrics psnr_db .*finite numbers"),
        ({"metrics": {"<b>": {"value": 1}}}, "is no name"),
        ({"settings": {"seed": [1]}}, "finite numbers"),
        ({"curves": {"loss": {"x": [1], "y": []}}}, "x has 1 entries and y 0"),
        ({"plan": "plan.json"}, "plan must match"),
        ({"title": "x" * 201}, "at most 200 letters"),
    ],
)
def test_a_document_of_a_stranger_is_checked(change, words):
    from mpqdm_core.errors import LoadError

    document = json.loads(json.dumps(make()[0].as_dict()))
    assert KeptRun.from_dict(document) == make()[0]
    with pytest.raises(LoadError, match=words):
        KeptRun.from_dict({**document, **change})
