"""Long work in its own thread: the page shows how far it is, and Stop or a closed tab really ends it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mpqdm_core.errors import Cancelled, MpqdmError
from mpqdm_core.freed_memory import give_back
from mpqdm_core.progress import Report
from mpqdm_core.thread_priority import give_way

Value = TypeVar("Value")
INTERVAL_S = 0.3  # between two updates of the page
PATIENCE_S = 0.3  # Stop answers after this at the latest; a button pressed meanwhile would be lost
WAITING = "waiting for the stopped work to end"
OUT_OF_MEMORY = "There was not enough memory. Nothing is lost: choose fewer samples or a smaller model."
MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


_ENDING: list[threading.Thread] = []  # stopped jobs that have not noticed yet


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a job is."""

    done: int
    total: int
    message: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finished(Generic[Value]):
    """The job's result."""

    value: Value
    seconds: float


def stream(work: Callable[[Report], Value], interval: float = INTERVAL_S) -> Iterator[Step | Finished[Value]]:
    """Run `work` and yield its progress, then its result.

    Closing the generator (Stop, or the visitor left) makes the next report raise `Cancelled` inside `work`.
    Work that does not report for a while ends later; the next job waits for it, so that its memory is free.

    Args:
        work: called in a thread with the report it shall use.
        interval: seconds between two steps.

    Raises:
        MpqdmError: whatever `work` raised; running out of memory becomes one of these too.
    """
    stop, results = threading.Event(), queue.SimpleQueue[tuple[str, object]]()
    latest = [Step(done=0, total=1, message="starting", seconds=0.0)]
    begin = time.monotonic()

    def report(done: int, total: int, message: str) -> None:
        if stop.is_set():
            raise Cancelled("Stopped. What was there before is unchanged.")
        latest[0] = Step(done=done, total=total, message=message, seconds=time.monotonic() - begin)

    def run() -> None:
        give_way()
        try:
            for thread in list(_ENDING):
                report(0, 1, WAITING)
                thread.join()
            results.put(("value", work(report)))
        except BaseException as err:  # handed to the page's thread, which raises it again
            results.put(("error", err))
        finally:
            give_back()

    thread = threading.Thread(target=run, name="mpqdm-job", daemon=True)
    thread.start()
    try:
        while True:
            try:
                kind, value = results.get(timeout=interval)
                break
            except queue.Empty:
                step = latest[0]
                yield Step(
                    done=step.done, total=step.total, message=step.message, seconds=time.monotonic() - begin
                )
        if kind == "error":
            raise _as_sentence(value)  # type: ignore[arg-type]
        yield Finished(value=value, seconds=time.monotonic() - begin)  # type: ignore[arg-type]
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        _ENDING[:] = [stopped for stopped in (*_ENDING, thread) if stopped.is_alive()]


def _as_sentence(error: BaseException) -> BaseException:
    words = str(error).lower()
    if isinstance(error, MemoryError) or any(word in words for word in MEMORY_WORDS):
        return MpqdmError(OUT_OF_MEMORY)
    return error
