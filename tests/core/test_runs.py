"""The line of fine-tuning runs: one at a time, stopped, resumed, failed, and forgotten in the end."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.runs import BROKEN, MAX_WAITING, OUT_OF_MEMORY, Preview, RunRegistry, RunState, trailing_mean

PATIENCE_S = 30.0


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def over(run):
    until(lambda: not run.alive)
    return run.state


class Gate:
    """Work that reports until it is let through."""

    def __init__(self):
        self.open, self.started, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self, run):
        self.calls += 1
        self.started.set()
        while not self.open.wait(0.002):
            run.report(1, 2, "busy")
        return True


@pytest.fixture
def registry():
    return RunRegistry()


def test_a_run_reports_and_finishes(registry):
    gate = Gate()
    run = registry.submit("one", gate)
    until(lambda: run.message == "busy")
    assert (run.state, run.done, run.total) == (RunState.RUNNING, 1, 2)
    gate.open.set()
    assert over(run) is RunState.FINISHED
    assert registry.get(run.id) is run


def test_one_works_while_the_others_wait_in_order(registry):
    gates = [Gate(), Gate(), Gate()]
    runs = [registry.submit(str(number), gate) for number, gate in enumerate(gates)]
    gates[0].started.wait(PATIENCE_S)
    assert [registry.position(run) for run in runs] == [0, 1, 2]
    assert [run.state for run in runs[1:]] == [RunState.QUEUED] * 2
    gates[0].open.set()
    assert gates[1].started.wait(PATIENCE_S)
    assert registry.position(runs[2]) == 1 and not gates[2].started.is_set()
    gates[1].open.set()
    gates[2].open.set()
    assert [over(run) for run in runs] == [RunState.FINISHED] * 3


def test_stop_ends_the_one_at_work_and_lets_the_next_begin(registry):
    first, second = Gate(), Gate()
    stopped, waiting = registry.submit("first", first), registry.submit("second", second)
    first.started.wait(PATIENCE_S)
    registry.stop(stopped)
    assert over(stopped) is RunState.STOPPED
    assert second.started.wait(PATIENCE_S)
    registry.stop(waiting)
    assert over(waiting) is RunState.STOPPED


def test_one_that_waits_stops_at_once_and_never_works(registry):
    first, second = Gate(), Gate()
    working, waiting = registry.submit("first", first), registry.submit("second", second)
    registry.stop(waiting)
    assert waiting.state is RunState.STOPPED and registry.position(waiting) == 0
    first.open.set()
    over(working)
    assert second.calls == 0


def test_work_that_ends_early_by_itself_is_stopped_and_resumes_with_what_it_had(registry):
    answers = iter([False, True])

    def work(run):
        run.say("at work")
        return next(answers)

    run = registry.submit("one", work)
    assert over(run) is RunState.STOPPED
    registry.resume(run)
    assert over(run) is RunState.FINISHED
    assert len(run.log) == 2


def test_a_finished_run_cannot_be_resumed(registry):
    run = registry.submit("one", lambda _: True)
    over(run)
    with pytest.raises(SettingsError, match="start a new one"):
        registry.resume(run)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("the loss is nan at step 3"), "the loss is nan at step 3"),
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY),
        (KeyError("secret detail"), BROKEN),
    ],
)
def test_a_failure_is_a_sentence_and_the_next_run_works(registry, error, sentence):
    def fail(run):
        run.add_preview(Preview(step=0, images=np.zeros((1, 2, 2, 3), np.uint8), psnr_db=3.0))
        raise error

    failed, after = registry.submit("bad", fail), registry.submit("good", lambda _: True)
    assert over(failed) is RunState.FAILED and failed.error == sentence
    assert len(failed.previews) == 1  # what it has shown stays
    assert over(after) is RunState.FINISHED


def test_a_failed_run_can_be_resumed_and_forgets_its_sentence(registry):
    errors = [DataError("no")]

    def work(run):
        if errors:
            raise errors.pop()
        return True

    run = registry.submit("one", work)
    over(run)
    registry.resume(run)
    assert over(run) is RunState.FINISHED and run.error == ""


def test_the_thread_ends_with_the_line(registry):
    def workers():
        return [thread for thread in threading.enumerate() if thread.name == "mpqdm-runs"]

    run = registry.submit("one", lambda _: True)
    over(run)
    until(lambda: not workers())
    again = registry.submit("two", lambda _: True)  # and a new one starts
    assert over(again) is RunState.FINISHED


def test_a_full_line_is_a_sentence(registry):
    gate = Gate()
    runs = [registry.submit(str(number), gate) for number in range(MAX_WAITING + 1)]
    with pytest.raises(SettingsError, match=f"{MAX_WAITING} runs are waiting"):
        registry.submit("one too many", gate)
    for run in reversed(runs):
        registry.stop(run)
    over(runs[0])


def test_only_the_last_runs_are_kept_and_their_files_go_with_the_others():
    registry = RunRegistry(capacity=2)
    runs = []
    for number in range(4):
        runs.append(registry.submit(str(number), lambda run: bool(run.checkpoint.write_bytes(b"x"))))
        over(runs[-1])
    assert [registry.get(run.id) is run for run in runs] == [False, False, True, True]
    assert [run.folder.exists() for run in runs] == [False, False, True, True]
    assert registry.get("unknown") is None and registry.get(None) is None


def test_steps_taken_again_replace_the_old_ones(registry):
    run = registry.submit("one", lambda _: True)
    for step, loss in [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0)]:
        run.add_step(SimpleNamespace(step=step, loss=loss))
    assert [(record.step, record.loss) for record in run.steps] == [(1, 5.0), (2, 3.0)]
    for step in (0, 25, 0):
        run.add_diagnosis(SimpleNamespace(step=step))
    assert [diagnosis.step for diagnosis in run.diagnoses] == [0]


def test_a_stopped_run_is_told_at_its_next_report(registry):
    heard = []

    def work(run):
        registry.stop(run)
        assert run.stopping
        try:
            run.report(1, 2, "x")
        except Cancelled:
            heard.append("stop")
            raise
        return True

    assert over(registry.submit("one", work)) is RunState.STOPPED
    assert heard == ["stop"]


def test_the_trailing_mean_of_a_pass():
    assert trailing_mean([4.0, 2.0, 6.0, 0.0], 2).tolist() == [4.0, 3.0, 4.0, 3.0]
    assert trailing_mean([1.0, 2.0], 10).tolist() == [1.0, 1.5]
    assert trailing_mean([], 3).tolist() == []
