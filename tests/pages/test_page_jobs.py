"""Jobs report, return, fail with their own error, and stop when nobody listens any more."""

import threading

import pytest

from mpqdm_core.errors import Cancelled, LoadError, MpqdmError
from pages import _jobs
from pages._jobs import Finished, Step, stream


def test_a_job_reports_and_returns_its_value():
    go = threading.Event()

    def work(report):
        report(1, 4, "first quarter")
        go.wait(5)
        return 42

    events = stream(work, interval=0.01)
    step = next(event for event in events if isinstance(event, Step) and event.done)
    go.set()
    assert (step.done, step.total, step.message) == (1, 4, "first quarter")
    assert next(event for event in events if isinstance(event, Finished)).value == 42


def test_closing_the_generator_stops_the_work():
    stopped = threading.Event()

    def work(report):
        try:
            while True:
                report(0, 1, "busy")
        except Cancelled:
            stopped.set()
            raise

    events = stream(work, interval=0.01)
    next(events)
    events.close()
    assert stopped.is_set()


def test_work_that_does_not_notice_holds_up_the_next_job_but_not_stop(monkeypatch):
    monkeypatch.setattr(_jobs, "PATIENCE_S", 0.01)
    order, release = [], threading.Event()

    def stubborn(report):
        release.wait(10)
        order.append("first")

    stopped = stream(stubborn, interval=0.01)
    next(stopped)
    stopped.close()  # comes back although the work goes on
    events = stream(lambda report: order.append("second"), interval=0.01)
    assert next(event.message for event in events if event.message != "starting") == _jobs.WAITING
    assert order == []
    release.set()
    assert isinstance(list(events)[-1], Finished)
    assert order == ["first", "second"]


def test_an_error_of_the_work_reaches_the_page():
    def work(report):
        raise LoadError("no model here")

    with pytest.raises(LoadError, match="no model here"):
        list(stream(work, interval=0.01))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_running_out_of_memory_becomes_a_sentence(error):
    def work(report):
        raise error

    with pytest.raises(MpqdmError, match="not enough memory"):
        list(stream(work, interval=0.01))
