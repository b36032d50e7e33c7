"""A measurement that was stopped on the page is gone on with; on a shared server nothing of it is kept."""

import os
import time
from pathlib import Path

import pytest

from mpqdm_core.calibration import Calibration
from mpqdm_core.errors import Cancelled
from pages import _work
from pages._unfinished import KEPT_S, Unfinished

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path))
    monkeypatch.delenv("SPACE_ID", raising=False)
    return tmp_path / "measuring"


@pytest.fixture
def calibration():
    """The calibration that comes with the bundled model, as any calibration."""
    return Calibration.load(ASSETS / "data" / "sprites-ldm" / "calibration.safetensors")


def nothing(checkpoint):
    pytest.fail("computed a second time")


def test_a_calibration_that_was_done_is_read_again_until_the_table_is_done(folder, calibration):
    first = Unfinished("key").calibrated(lambda checkpoint: calibration)
    again = Unfinished("key").calibrated(nothing)
    assert again.content_hash == first.content_hash == calibration.content_hash

    def stopped(checkpoint):
        checkpoint.write_bytes(b"layers so far")
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        Unfinished("key").measured(stopped)
    assert Unfinished("key").measured(lambda checkpoint: checkpoint.read_bytes()) == b"layers so far"
    assert not (folder / "key.calibration").exists()


def test_half_a_calibration_is_made_again(folder, calibration):
    Unfinished("key")
    (folder / "key.calibration").write_bytes(b"half")
    assert Unfinished("key").calibrated(lambda checkpoint: calibration) is calibration


def test_another_model_or_other_settings_begin_anew(folder, calibration):
    Unfinished("one").calibrated(lambda checkpoint: calibration)
    assert Unfinished("other").calibrated(lambda checkpoint: calibration) is calibration


def test_what_nobody_came_back_for_goes_after_a_week(folder, calibration):
    Unfinished("old").calibrated(lambda checkpoint: calibration)
    past = time.time() - KEPT_S - 60
    os.utime(folder / "old.calibration", (past, past))
    Unfinished("new").calibrated(lambda checkpoint: calibration)
    assert [file.name for file in folder.iterdir()] == ["new.calibration"]


@pytest.mark.parametrize("why", ["shared", "not writable"])
def test_without_a_place_everything_is_computed(folder, calibration, monkeypatch, why):
    if why == "shared":
        monkeypatch.setenv("SPACE_ID", "someone/space")
    else:
        folder.write_text("a file where the folder should be")
    seen = []
    made = Unfinished("key").calibrated(lambda checkpoint: seen.append(checkpoint) or calibration)
    assert made is calibration and seen == [None]
    assert Unfinished("key").measured(lambda checkpoint: checkpoint) is None
    assert not folder.is_dir()


def test_stop_while_calibrating_leaves_what_measuring_goes_on_with(folder):
    work = _work.load("sprites-ldm", lambda *_: None)

    def report(done, total, message):
        if message.startswith("calibrating") and done % 100 > 20:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        _work.measure(work, 4, 1, report)
    (kept,) = folder.iterdir()
    assert kept.suffix == ".calibrating" and kept.name.startswith("4-")
