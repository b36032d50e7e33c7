"""How long a fine-tuning run takes to stop, and what memory it keeps: the page's run, without the page."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable

from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.finetune_run import finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.runs import Run, RunRegistry, RunState
from mpqdm_core.teacher import TeacherRecord

STEPS_BEFORE = 3
LOOK_S = 0.005
PATIENCE_S = 300.0


def time_stop(
    denoiser: Denoiser,
    calibration: Calibration,
    plan: BitPlan,
    record: TeacherRecord,
    settings: FinetuneSettings,
    quant_settings: QuantSettings,
) -> tuple[float, float]:
    """Stop a run that has taken a few steps.

    Returns:
        Seconds from Stop until its adapter is there; and the MiB of resident memory that is still taken then
        beyond what was before the run. The run before this one must have been of the same kind, or what
        libraries keep for themselves counts too.

    Raises:
        TimeoutError: it did not stop.
    """

    def work(run: Run) -> bool:
        result = finetune(
            *(denoiser, calibration, plan, record, settings, quant_settings),
            checkpoint=run.checkpoint,
            report=run.report,
            on_step=run.add_step,
        )
        run.adapter = result.adapter
        return result.finished

    before, registry = resident_mib(), RunRegistry()
    run = registry.submit("to be stopped", work)
    _wait(lambda: len(run.steps) >= STEPS_BEFORE or not run.alive)
    registry.stop(run)
    began = time.perf_counter()
    _wait(lambda: not run.alive)
    stopped_s = time.perf_counter() - began
    if run.state is not RunState.STOPPED or run.adapter is None:
        raise TimeoutError(f"the run ended as {run.state}: {run.error}")
    run.adapter = None
    return stopped_s, resident_mib() - before


def resident_mib() -> float:
    """Resident memory after everything unused was given back; Linux only, else NaN."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    except (OSError, AttributeError):
        return float("nan")


def _wait(done: Callable[[], bool]) -> None:
    end = time.perf_counter() + PATIENCE_S
    while not done():
        if time.perf_counter() > end:
            raise TimeoutError(f"the run did not get there in {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)
