"""Measurements that were stopped, kept among the user's data so that measuring again goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpqdm_core.board.store import default_folder
from mpqdm_core.errors import LoadError
from pages._ablation_store import shared_server

KEPT_S = 7 * 24 * 3600.0  # nobody goes on after a week


def keeps_unfinished() -> bool:
    """Whether a measurement that is stopped goes on when it is started again; a shared server keeps none."""
    return not shared_server()


class Unfinished:
    """The files of one measurement: calibration and error table under way, and a calibration that is done."""

    def __init__(self, key: str) -> None:
        """Files are named after `key`, which stands for model and settings."""
        self._folder = _made(default_folder() / "measuring") if keeps_unfinished() else None
        self._key = key

    def calibrated(self, calibrate: Callable[..., Any]) -> Any:
        """The calibration of an earlier attempt, or `calibrate(checkpoint=...)`."""
        from mpqdm_core.calibration import Calibration

        done = self._file("calibration")
        if done is None:
            return calibrate(checkpoint=None)
        try:
            return Calibration.load(done)
        except LoadError:  # not there, or a crash left half of it
            made = calibrate(checkpoint=self._file("calibrating"))
        made.save(done)
        return made

    def measured(self, measure: Callable[..., Any]) -> Any:
        """`measure(checkpoint=...)`; nothing of the attempt is left then."""
        found = measure(checkpoint=self._file("measuring"))
        if (done := self._file("calibration")) is not None:
            done.unlink(missing_ok=True)
        return found

    def _file(self, ending: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{self._key[:32]}.{ending}"


def _made(folder: Path) -> Path | None:
    """The folder without what is too old; None where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.stat().st_mtime < time.time() - KEPT_S:
                file.unlink(missing_ok=True)
    except OSError:
        return None
    return folder
