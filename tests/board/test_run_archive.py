import hashlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from board_runs import make

from mpqdm_core.board.archive import HEAD, Limits, export_runs, import_runs
from mpqdm_core.board.blobs import StoreError
from mpqdm_core.board.store import RunStore
from mpqdm_core.errors import LoadError, MpqdmError


@pytest.fixture
def full(tmp_path):
    store = RunStore(tmp_path / "full")
    for number in (1, 2):
        store.add(*make(number))
    return store


@pytest.fixture
def empty(tmp_path):
    return RunStore(tmp_path / "empty")


@pytest.fixture
def archive(full, tmp_path):
    return export_runs(full.runs(), full.blobs.get, tmp_path / "runs.zip")


def entries(path):
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def write(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in contents.items():
            made.writestr(name, data)
    return path


def test_runs_come_back_from_a_zip_and_a_second_time_nothing_changes(full, empty, archive):
    found = import_runs(empty, archive)
    assert empty.runs() == full.runs() and len(found.added) == 2 and found.known == ()
    assert [empty.blobs.get(name) for name in make(1)[0].blobs] == list(make(1)[1])
    empty.note(found.added[0], "mine")
    assert import_runs(empty, archive).known == found.added
    assert empty.get(found.added[0]).note == "mine"


def test_the_same_runs_give_the_same_bytes(full, archive, tmp_path):
    again = export_runs(full.runs(), full.blobs.get, tmp_path / "again.zip")
    assert archive.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/passwd", "runs/../../x.json", "blobs\\..\\x", "C:/x", "runs/x.json"]
)
def test_a_name_that_leads_elsewhere_is_refused(archive, empty, tmp_path, name):
    bad = write(tmp_path / "bad.zip", {**entries(archive), name: b"{}"})
    with pytest.raises(LoadError, match="does not belong"):
        import_runs(empty, bad)
    assert not empty.folder.exists()


def test_a_bomb_is_not_unpacked(archive, empty, tmp_path):
    bomb = b"\0" * 400_000
    contents = {**entries(archive), f"blobs/{hashlib.sha256(bomb).hexdigest()}": bomb}
    bad = write(tmp_path / "bad.zip", contents)
    with pytest.raises(LoadError, match="larger than the 97 KiB"):
        import_runs(empty, bad, Limits(file=100_000))
    with pytest.raises(LoadError, match="larger than"):
        import_runs(empty, bad, Limits(total=200_000))
    with pytest.raises(LoadError, match="entries, at most 3"):
        import_runs(empty, bad, Limits(entries=3))


def test_changed_contents_are_refused(archive, empty, tmp_path):
    contents = entries(archive)
    blob = next(name for name in contents if name.startswith("blobs/"))
    with pytest.raises(LoadError, match="contents do not match"):
        import_runs(empty, write(tmp_path / "bad.zip", {**contents, blob: b"other"}))
    with pytest.raises(LoadError, match="lacks one of its files"):
        import_runs(empty, write(tmp_path / "bad.zip", {n: d for n, d in contents.items() if n != blob}))
    assert empty.runs() == ()


def huge_png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("picture", [b"GIF89a", b"", huge_png(60_000, 60_000), huge_png(8, 4)])
def test_a_picture_that_is_none_is_refused(full, empty, tmp_path, picture):
    run, files = make(1)
    other = hashlib.sha256(picture).hexdigest()
    document = json.loads(json.dumps(run.as_dict()))
    document["pictures"]["drawn"] = other
    contents = {
        HEAD: json.dumps({"format": "mpqdm-runs", "version": 1}),
        f"runs/{run.id}.json": json.dumps(document),
        f"blobs/{other}": picture,
        **{f"blobs/{hashlib.sha256(data).hexdigest()}": data for data in files[1:]},
    }
    with pytest.raises(LoadError, match=r"pictures of run .* (cannot be read|are not 8 x 4)"):
        import_runs(empty, write(tmp_path / "bad.zip", contents))


@pytest.mark.parametrize(
    ("head", "words"),
    [(b"[]", "does not say"), (b'{"format": "mpqdm-runs", "version": 9}', "version 9"), (b"{", "no JSON")],
)
def test_another_kind_of_zip_is_refused(archive, empty, tmp_path, head, words):
    with pytest.raises(LoadError, match=words):
        import_runs(empty, write(tmp_path / "bad.zip", {**entries(archive), HEAD: head}))


def test_no_zip_at_all(empty, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 not really")
    for path in (tmp_path / "x.zip", tmp_path / "missing.zip"):
        with pytest.raises(LoadError, match="no zip of runs"):
            import_runs(empty, path)
    with pytest.raises(LoadError, match="needs"):
        import_runs(empty, write(tmp_path / "y.zip", {}))


def test_mutated_zips_are_read_or_refused_and_write_nothing_outside(archive, tmp_path):
    """Bytes of a good zip are changed at random: an error of ours, or runs that are sound."""
    data, rng = archive.read_bytes(), np.random.default_rng(0)
    before = {path for path in tmp_path.rglob("*") if "mutated" not in path.parts}
    for number in range(500):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            changed[place] = rng.integers(0, 256)
        changed = changed[: rng.integers(len(data) // 2, len(data))] if number % 5 == 0 else changed
        store = RunStore(tmp_path / "mutated" / str(number))
        try:
            import_runs(store, io.BytesIO(bytes(changed)))
        except MpqdmError:
            assert store.runs() == ()
        else:
            assert {run.id for run in store.runs()} <= {make(1)[0].id, make(2)[0].id}
    assert {path for path in tmp_path.rglob("*") if "mutated" not in path.parts} == before


def test_what_cannot_be_exported(full, tmp_path):
    with pytest.raises(LoadError, match="no run to export"):
        export_runs([], full.blobs.get, tmp_path / "x.zip")
    with pytest.raises(StoreError, match="cannot write"):
        export_runs(full.runs(), full.blobs.get, "/proc/x.zip")
    with pytest.raises(StoreError, match="is missing"):
        export_runs([make(3)[0]], full.blobs.get, tmp_path / "x.zip")
