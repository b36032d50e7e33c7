"""Fine-tuning runs that outlive the page they were started on: one at a time, the others wait in line."""

from __future__ import annotations

import atexit
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.errors import Cancelled, MpqdmError, SettingsError
from mpqdm_core.thread_priority import give_way

if TYPE_CHECKING:  # none of these is needed to show a page, and all of them import torch
    from mpqdm_core.adapter import Adapter
    from mpqdm_core.doctor import Diagnosis
    from mpqdm_core.finetuner import StepRecord

MAX_RUNS = 12  # kept, with what they have shown; those in line and the one at work are always kept
MAX_WAITING = 8
MAX_LOG = 400  # lines
OUT_OF_MEMORY = "There was not enough memory: choose fewer pictures per step, or a smaller window."
MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
BROKEN = "Something went wrong that should not have: the server's log says what."


class RunState(StrEnum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"  # before its last step; it can be resumed
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """The same few pictures, drawn with the student of one moment."""

    step: int  # optimiser steps taken
    images: NDArray[np.uint8]  # (N, H, W, 3)
    psnr_db: float | None  # mean over the pictures, against full precision; None: the same pixels


@dataclass(kw_only=True, eq=False)
class Run:
    """One run and everything it has shown so far.

    Written by the thread that works on it, read by any other. Lists only grow at their end, or are replaced
    as a whole when a resumed run takes some steps again, so a reader needs no lock: it takes a copy.
    """

    id: str
    title: str
    folder: Path  # for its checkpoint and its adapter
    state: RunState = RunState.QUEUED
    done: int = 0
    total: int = 1
    message: str = ""
    error: str = ""  # the sentence of a failed run
    steps: list[StepRecord] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    names: tuple[str, ...] = ()  # what each preview shows
    reference: NDArray[np.uint8] | None = None  # (N, H, W, 3): the previews in full precision
    previews: list[Preview] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    adapter: Adapter | None = None
    adapter_file: Path | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _left: int | None = None  # steps until it stops by itself
    _began: float | None = None
    _worked: float = 0.0

    @property
    def checkpoint(self) -> Path:
        """Where its state is written every few seconds; the file goes when the run has finished."""
        return self.folder / "state.pt"

    @property
    def alive(self) -> bool:
        """Whether it waits or works."""
        return self.state in (RunState.QUEUED, RunState.RUNNING)

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop and has not yet."""
        return self.alive and self._stop.is_set()

    @property
    def seconds(self) -> float:
        """How long it has been worked on, waiting and pauses not counted."""
        return self._worked + (0.0 if self._began is None else time.monotonic() - self._began)

    def report(self, done: int, total: int, message: str) -> None:
        """Say how far it is; a `Report`.

        Raises:
            Cancelled: it was asked to stop.
        """
        if self._stop.is_set():
            raise Cancelled("Stopped.")
        self.done, self.total, self.message = done, total, message

    def say(self, sentence: str) -> None:
        """Write one line into the log."""
        self.log = [*self.log[-MAX_LOG + 1 :], f"{self.seconds:6.1f} s  {sentence}"]

    def add_step(self, record: StepRecord) -> None:
        """Keep one step's loss; steps from there on that were taken before are forgotten."""
        if self.steps and self.steps[-1].step >= record.step:
            self.steps = [kept for kept in self.steps if kept.step < record.step]
        self.steps.append(record)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._stop.set()

    def add_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Keep one look of the doctor."""
        self.diagnoses = [*(kept for kept in self.diagnoses if kept.step < diagnosis.step), diagnosis]

    def add_preview(self, preview: Preview) -> None:
        """Keep the pictures of one moment."""
        self.previews = [*(kept for kept in self.previews if kept.step < preview.step), preview]


Work = Callable[[Run], bool]
"""What a run does; returns whether it came to its end. Called again to resume; `Cancelled` means stopped."""


class RunRegistry:
    """Keeps runs by id and works on one at a time, in a thread that ends when nobody is in line."""

    def __init__(self, capacity: int = MAX_RUNS) -> None:
        """Start empty; files go to a temporary folder that is removed with the process."""
        self._capacity = capacity
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._works: dict[str, Work] = {}
        self._line: deque[str] = deque()  # the first is being worked on
        self._guard = threading.RLock()
        self._root: Path | None = None

    def submit(self, title: str, work: Work) -> Run:
        """Put a new run at the end of the line.

        Raises:
            SettingsError: the line is full.
        """
        with self._guard:
            self._check_line()
            name = secrets.token_hex(8)  # nobody guesses the run of another visitor
            run = Run(id=name, title=title, folder=self._folder(name))
            self._runs[name], self._works[name] = run, work
            self._enter(run)
            self._forget()
            return run

    def get(self, name: str | None) -> Run | None:
        """The run with this id, or None if there is none any more."""
        with self._guard:
            return self._runs.get(name) if name else None

    def position(self, run: Run) -> int:
        """How many runs come before this one; 0 for one that is worked on or not in line."""
        with self._guard:
            return self._line.index(run.id) if run.id in self._line else 0

    def stop(self, run: Run) -> None:
        """Ask it to stop; one that waits has stopped at once."""
        with self._guard:
            run._stop.set()
            if run.state is RunState.QUEUED:
                self._line.remove(run.id)
                run.state = RunState.STOPPED

    def resume(self, run: Run, steps: int | None = None) -> None:
        """Put a stopped or failed run at the end of the line again; it goes on from its checkpoint.

        Args:
            run: one of this registry.
            steps: it stops by itself after so many; None: at its end.

        Raises:
            SettingsError: it has finished, is not kept any more, or the line is full.
        """
        with self._guard:
            if run.alive:
                return
            if run.state is RunState.FINISHED or self._runs.get(run.id) is not run:
                raise SettingsError("this run cannot be resumed: start a new one")
            self._check_line()
            run._left = steps
            self._enter(run)

    def _enter(self, run: Run) -> None:
        run._stop.clear()
        run.state, run.error, run.message = RunState.QUEUED, "", "waiting"
        self._line.append(run.id)
        if len(self._line) == 1:
            threading.Thread(target=self._work_off, name="mpqdm-runs", daemon=True).start()

    def _work_off(self) -> None:
        """Work on whoever is first until the line is empty."""
        give_way()
        while True:
            with self._guard:
                if not self._line:
                    return
                run = self._runs[self._line[0]]
                work, run.state = self._works[run.id], RunState.RUNNING
            run._began = time.monotonic()
            state, sentence = _carry_out(run, work)
            with self._guard:
                run._worked, run._began = run.seconds, None
                run.error, run.state = sentence, state
                self._line.popleft()
                if not self._line:
                    return

    def _check_line(self) -> None:
        if len(self._line) > MAX_WAITING:
            raise SettingsError(f"{MAX_WAITING} runs are waiting already: try again in a few minutes")

    def _folder(self, name: str) -> Path:
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="mpqdm-runs-"))
            atexit.register(shutil.rmtree, self._root, ignore_errors=True)
        folder = self._root / name
        folder.mkdir()
        return folder

    def _forget(self) -> None:
        """Drop the oldest runs that are over."""
        over = [name for name, run in self._runs.items() if not run.alive]
        for name in over[: max(0, len(self._runs) - self._capacity)]:
            shutil.rmtree(self._runs.pop(name).folder, ignore_errors=True)
            self._works.pop(name)


def trailing_mean(values: Sequence[float], width: int) -> NDArray[np.float64]:
    """The mean of each value and the up to `width` - 1 before it.

    Returns:
        (n,). Windows at different timesteps have very different losses; over one pass they even out.
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - max(1, width), 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _carry_out(run: Run, work: Work) -> tuple[RunState, str]:
    """Let a run work; return how it ended, and what to say about it."""
    try:
        return (RunState.FINISHED if work(run) else RunState.STOPPED), ""
    except Cancelled:
        return RunState.STOPPED, ""
    except MpqdmError as error:
        return RunState.FAILED, str(error)
    except Exception as error:
        words = str(error).lower()
        if isinstance(error, MemoryError) or any(word in words for word in MEMORY_WORDS):
            return RunState.FAILED, OUT_OF_MEMORY
        logging.getLogger(__name__).exception("the run %s failed", run.title)
        return RunState.FAILED, BROKEN
