"""The long job of the Distill page: record the teacher, fine-tune, draw previews, keep the adapter."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpqdm_core.errors import Cancelled, DataError, MpqdmError
from mpqdm_core.progress import Report, silent
from mpqdm_core.runs import Preview, Run, RunRegistry
from pages._compare_work import prepared
from pages._distill_adapters import ADAPTERS, Offered
from pages._distill_settings import Order
from pages._size import DEFAULT_STEPS
from pages._warm import import_all
from pages._work import phase
from pages._workspace import Recent, Workspace
from pages._zero_gpu import is_zero_gpu, slice_order, take_slice

RUNS = RunRegistry()
TEACHERS: Recent[Any] = Recent(2)  # what teachers did; some tens of MB each
SPEEDS: Recent[float] = Recent(16)  # model -> seconds a step takes for each picture of its window
PREVIEW_SEEDS = (0, 1, 2, 3)
LOOKS, LEAST_BETWEEN = 8, 15  # previews and examinations in a run, and steps between two of them
WARM_UP, MEASURED = 1, 2  # steps
FORWARD_SHARE = 0.3  # of a training step's time: drawing needs no gradients
FEW_CORES = 4
SETUP_S = 4.0  # rounding the student, evaluating it, saving


def train(run: Run, order: Order) -> bool:
    """Do a run, or what is left of it; return whether it came to its end.

    Raises:
        Cancelled: stopped before the first step was possible.
        MpqdmError: it failed; what was learned until the last good state is offered as an adapter.
    """
    import_all()
    _calm_threads()
    run.say(f"{'Resuming' if run.steps else 'Starting'}: {order.title}.")
    denoiser, calibration, quant = prepared(order.solved, run.report)
    run.names = preview_names(order.solved.work)
    draw = _Previews(run=run, labels=preview_labels(order.solved.work))
    if run.reference is None:
        run.reference = draw.pictures(denoiser, run.report)
    record = _teacher(denoiser, order, run.report)
    run.say(f"The teacher is recorded on {record.pictures} pictures at {len(record.timesteps)} timesteps.")
    common = (denoiser, calibration, order.solved.allocation.plan, record, order.settings, quant)
    try:
        result = _finetuned(run, order, common, draw)
    except MpqdmError:
        _rescue(run, order, common)
        raise
    offer(run, order, result.adapter)
    if result.finished:  # somebody who pressed Stop has seen the last preview, and waits
        _last_pictures(run, draw, denoiser, calibration)
    run.say("Finished." if result.finished else f"Stopped after step {result.adapter.steps}.")
    return bool(result.finished)


def _finetuned(run: Run, order: Order, common: tuple[Any, ...], draw: _Previews) -> Any:
    """Fine-tune on this machine, or in slices where a GPU is lent by the minute."""
    from mpqdm_core.finetune_run import finetune
    from mpqdm_core.finetune_slices import finetune_in_slices

    clock, every = _Clock(run=run, order=order), _look_every(order)
    hears = {"report": clock.report, "on_step": clock.on_step, "on_examine": _examined(run)}
    looks = {"examine_every": every, "preview_every": every}
    if not is_zero_gpu():
        return finetune(*common, checkpoint=run.checkpoint, on_preview=draw.on_preview, **hears, **looks)
    run.say("This host lends its GPU by the minute: the run goes on from slice to slice.")
    asked = slice_order(
        common, run.checkpoint, preview_seeds=PREVIEW_SEEDS, preview_labels=draw.labels, **looks
    )
    return finetune_in_slices(asked, take_slice, on_preview=draw.show, **hears)


def measure_speed(order: Order, report: Report) -> float:
    """Time two steps of a run without keeping anything; return about how many seconds the run would take.

    Raises:
        Cancelled: raised by `report`.
    """
    import_all()
    from mpqdm_core.finetuner import Finetuner
    from mpqdm_core.quantization import quantize

    _calm_threads()
    denoiser, calibration, quant = prepared(order.solved, phase(report, 0, 4, "loading"))
    record = _teacher(denoiser, order, phase(report, 1, 4, "teacher"))
    plan = order.solved.allocation.plan
    student = quantize(denoiser, calibration, plan, quant, phase(report, 2, 4, "rounding"), freeze=False)
    tuner = Finetuner(student, record, order.settings, teacher=denoiser)
    try:
        times = []
        for step in range(WARM_UP + MEASURED):
            report(300 + 100 * step // (WARM_UP + MEASURED), 400, "trying two steps")
            began = time.monotonic()
            tuner.step()
            times.append(time.monotonic() - began)
    finally:
        tuner.close()
    _remember(order, statistics.mean(times[WARM_UP:]))
    return estimate(order) or math.nan


def estimate(order: Order) -> float | None:
    """About how many seconds a run takes on this machine, or None before anything was timed."""
    unit = SPEEDS.get(order.solved.work.key)
    if unit is None:
        return None
    settings, steps = order.settings, int(order.solved.work.sampler.get("num_inference_steps", DEFAULT_STEPS))
    looks = -(-settings.steps // _look_every(order))
    trained = settings.steps * settings.batch_size * settings.window
    drawn = steps * (order.teacher_pictures + len(PREVIEW_SEEDS) * (looks + 2))
    return SETUP_S + unit * (trained + FORWARD_SHARE * drawn)


def offer(run: Run, order: Order, adapter: Any) -> None:
    """Keep an adapter where it can be downloaded and compared."""
    run.adapter = adapter
    file = run.folder / f"adapter-{run.id[:6]}-{adapter.steps}.safetensors"
    adapter.save(file)
    run.adapter_file = file
    ADAPTERS.put(
        run.id[:6],
        Offered(
            key=run.id[:6],
            title=f"fine-tuned {adapter.steps} steps: {order.title}",
            work_key=order.solved.work.key,
            changed=order.solved.changed,
            adapter=adapter,
        ),
    )


def preview_names(work: Workspace) -> tuple[str, ...]:
    """What each preview shows, in words."""
    labels = preview_labels(work)
    if labels is None:
        return tuple(f"seed {seed}" for seed in PREVIEW_SEEDS)
    pairs = zip(labels, PREVIEW_SEEDS, strict=True)
    return tuple(f"{work.class_names[label]}, seed {seed}" for label, seed in pairs)


def preview_labels(work: Workspace) -> tuple[int, ...] | None:
    """Classes of the previews, spread over all there are."""
    count = len(work.class_names)
    if not count:
        return None
    return tuple(place * count // len(PREVIEW_SEEDS) for place in range(len(PREVIEW_SEEDS)))


def psnr(reference: np.ndarray, images: np.ndarray) -> float | None:
    """Mean PSNR in dB over pictures that differ; None where all are the same."""
    from mpqdm_core.metrics import psnr_db

    values = psnr_db(reference, images)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


@dataclass(frozen=True, kw_only=True)
class _Previews:
    """Draws the same few pictures with whatever the student is at the moment."""

    run: Run
    labels: tuple[int, ...] | None

    def pictures(self, denoiser: Any, report: Report) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        from mpqdm_core.sampling import sample

        images: np.ndarray = sample(denoiser, labels=self.labels, seeds=PREVIEW_SEEDS, report=report).images
        return images

    def on_preview(self, step: int, student: Any) -> None:
        """Draw, and show."""

        def listen(done: int, total: int, message: str) -> None:  # hears a stop, and leaves the bar alone
            self.run.report(self.run.done, self.run.total, self.run.message)

        self.show(step, self.pictures(student, listen))

    def show(self, step: int, images: np.ndarray) -> None:
        """Keep the pictures with their distance to full precision."""
        if self.run.reference is None:
            raise DataError("there are no full-precision pictures to hold the previews against")
        self.run.add_preview(Preview(step=step, images=images, psnr_db=psnr(self.run.reference, images)))


@dataclass(kw_only=True)
class _Clock:
    """Times the steps of a run and says how long it will still take."""

    run: Run
    order: Order
    ends: list[float] = field(default_factory=list)

    def on_step(self, record: Any) -> None:
        """One step is done."""
        self.ends.append(time.monotonic())
        self.run.add_step(record)
        if len(self.ends) > WARM_UP + MEASURED:
            _remember(self.order, self.step_s())

    def step_s(self) -> float:
        """Median time from step to step: what previews, doctor and checkpoints take stands outside."""
        recent = self.ends[-51:]
        return statistics.median(after - before for before, after in itertools.pairwise(recent))

    def report(self, done: int, total: int, message: str) -> None:
        """Pass on, with the time that is left."""
        if len(self.ends) > WARM_UP + MEASURED:
            message = f"{message}, about {self.step_s() * (total - done):.0f} s left"
        self.run.report(done, total, message)


def _calm_threads() -> None:
    """Let operators of this thread use one core where there are few.

    Training keeps two cores busy with shares of a batch; threads inside operators as small as a preview's
    would mostly wait for each other.
    """
    import torch

    if (os.cpu_count() or 1) <= FEW_CORES:
        torch.set_num_threads(1)


def _teacher(denoiser: Any, order: Order, report: Report) -> Any:
    from mpqdm_core.teacher import record_teacher

    pictures, seed = order.teacher_pictures, order.settings.seed
    return TEACHERS.get_or_make(
        (denoiser.content_hash, pictures, seed),
        lambda: record_teacher(denoiser, pictures=pictures, seed=seed, report=report),
    )


def _look_every(order: Order) -> int:
    return max(LEAST_BETWEEN, -(-int(order.settings.steps) // LOOKS))


def _remember(order: Order, step_s: float) -> None:
    SPEEDS.put(order.solved.work.key, step_s / (order.settings.batch_size * order.settings.window))


def _examined(run: Run) -> Callable[[Any], None]:
    def on_examine(diagnosis: Any) -> None:
        known = set(run.diagnoses[-1].flags) if run.diagnoses else set()
        run.add_diagnosis(diagnosis)
        for flag in diagnosis.flags:
            if flag not in known:
                run.say(f"The doctor, at step {diagnosis.step}: {flag}")

    return on_examine


def _last_pictures(run: Run, draw: _Previews, denoiser: Any, calibration: Any) -> None:
    """Draw with what the adapter makes of the model: exactly what others will see."""
    from mpqdm_core.adapter import apply_adapter

    student = apply_adapter(denoiser, calibration, run.adapter)
    draw.show(run.adapter.steps, draw.pictures(student.denoiser, silent))  # type: ignore[union-attr]


def _rescue(run: Run, order: Order, common: tuple[Any, ...]) -> None:
    """Offer the last good state of a run that failed; nothing if there is none."""
    from mpqdm_core.finetune_run import finetune

    def stop_at_once(done: int, total: int, message: str) -> None:
        raise Cancelled

    if not run.checkpoint.exists():
        return
    try:
        offer(run, order, finetune(*common, checkpoint=run.checkpoint, report=stop_at_once).adapter)
    except MpqdmError as error:
        run.say(f"The last good state could not be kept: {error}")
