"""Fine-tuning in slices of limited time, each of which may run in a process of its own.

Hosts that lend a GPU by the minute (ZeroGPU on Hugging Face Spaces) run a function in another process and end
it when its time is up. A slice goes on from the run's checkpoint, so that any number of them does what one
uninterrupted run does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.adapter import Adapter
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.doctor import Diagnosis
from mpqdm_core.errors import Cancelled, DataError
from mpqdm_core.finetune_run import FinetuneResult, finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import StepRecord
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.sampling import sample
from mpqdm_core.teacher import TeacherRecord
from mpqdm_core.thread_priority import give_way


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceOrder:
    """All that a slice needs; it can be pickled.

    Attributes:
        denoiser: full precision.
        calibration: taken from it.
        plan: bits of every channel.
        record: what the teacher did.
        settings: of the whole run.
        quant_settings: the rounding.
        checkpoint: file that every slice of a run shares; adapter and the wish to stop lie beside it.
        seconds: after which a slice ends, one step at least.
        device: to compute on, such as "cuda".
        examine_every: steps between two looks of the doctor.
        preview_every: steps between two previews.
        preview_seeds: of the previews' noise; empty: no previews.
        preview_labels: their classes; None for a model without.
    """

    denoiser: Denoiser
    calibration: Calibration
    plan: BitPlan
    record: TeacherRecord
    settings: FinetuneSettings
    quant_settings: QuantSettings
    checkpoint: Path
    seconds: float
    device: str = "cpu"
    examine_every: int = 25
    preview_every: int = 50
    preview_seeds: tuple[int, ...] = ()
    preview_labels: tuple[int, ...] | None = None

    @property
    def stop_file(self) -> Path:
        """Is there once somebody wants the run to stop."""
        return self.checkpoint.with_suffix(".stop")

    @property
    def adapter_file(self) -> Path:
        """Where a slice leaves what was learned so far."""
        return self.checkpoint.with_suffix(".safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Previews of one moment."""

    step: int
    images: NDArray[np.uint8]  # (N, H, W, 3)


@dataclass(frozen=True, kw_only=True)
class SliceEnd:
    """The last event of a slice; the adapter lies in the order's file."""

    steps: int  # taken by the run so far
    finished: bool


SliceEvent = StepRecord | Diagnosis | Drawn | SliceEnd


def run_slice(order: SliceOrder) -> Iterator[SliceEvent]:
    """Train until the time is up, the run is finished or somebody wants to stop; yield what happens.

    Raises:
        MpqdmError: as `finetune` does.
    """
    events = queue.SimpleQueue[SliceEvent | BaseException]()

    def work() -> None:
        give_way()
        try:
            events.put(_train(order, events.put))
        except BaseException as error:  # raised again by whoever listens
            events.put(error)

    threading.Thread(target=work, name="mpqdm-slice", daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, SliceEnd):
            return


def finetune_in_slices(
    order: SliceOrder,
    take_slice: Callable[[SliceOrder], Iterator[SliceEvent]] = run_slice,
    *,
    report: Report = silent,
    on_step: Callable[[StepRecord], None] | None = None,
    on_examine: Callable[[Diagnosis], None] | None = None,
    on_preview: Callable[[int, NDArray[np.uint8]], None] | None = None,
) -> FinetuneResult:
    """Take one slice after the other until the run is finished or stopped.

    Args:
        order: of every slice.
        take_slice: `run_slice`, or what carries it out elsewhere and passes its events on.
        report: told every step; `Cancelled` raised by it ends the slice at its next step.
        on_step: hears every step's loss.
        on_examine: hears the doctor.
        on_preview: hears the steps taken and the pictures, (N, H, W, 3) uint8.

    Raises:
        DataError: a slice came back without having taken a step.
        MpqdmError: as `finetune` does.
    """
    order.stop_file.unlink(missing_ok=True)
    done, total, stopped = -1, order.settings.steps, False
    while True:
        event: SliceEvent | None = None
        for event in take_slice(order):
            match event:
                case StepRecord() if on_step is not None:
                    on_step(event)
                case Diagnosis() if on_examine is not None:
                    on_examine(event)
                case Drawn() if on_preview is not None:
                    on_preview(event.step, event.images)
            if isinstance(event, StepRecord) and not stopped:
                try:
                    report(event.step, total, "fine-tuning")
                except Cancelled:
                    stopped = True
                    order.stop_file.touch()
        if not isinstance(event, SliceEnd) or (event.steps <= done and not event.finished):
            raise DataError(f"{order.seconds:g} s are too short for one step: give each slice more time")
        done = event.steps
        if event.finished or stopped:
            return FinetuneResult(adapter=Adapter.load(order.adapter_file), finished=event.finished)


def _train(order: SliceOrder, tell: Callable[[SliceEvent], None]) -> SliceEnd:
    end = time.monotonic() + order.seconds
    first: list[int] = []

    def report(done: int, total: int, message: str) -> None:
        first[:] = first or [done]
        late = done > first[0] and time.monotonic() >= end
        if done < total and (late or order.stop_file.exists()):
            raise Cancelled

    def on_preview(step: int, student: Denoiser) -> None:
        settings = order.record.sampler  # the timesteps that it has ranges for
        drawn = sample(student, labels=order.preview_labels, seeds=order.preview_seeds, settings=settings)
        tell(Drawn(step=step, images=drawn.images))

    result = finetune(
        order.denoiser.to(order.device),
        order.calibration,
        order.plan,
        order.record,
        order.settings,
        order.quant_settings,
        checkpoint=order.checkpoint,
        report=report,
        on_step=tell,
        on_examine=tell,
        examine_every=order.examine_every,
        on_preview=on_preview if order.preview_seeds else None,
        preview_every=order.preview_every,
    )
    tensors = {name: tensor.cpu() for name, tensor in result.adapter.tensors.items()}
    replace(result.adapter, tensors=tensors).save(order.adapter_file)
    return SliceEnd(steps=result.adapter.steps, finished=result.finished)
