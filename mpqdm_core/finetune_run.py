"""A whole fine-tuning run: progress, checkpoints that survive a kill, Stop, and the adapter at the end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mpqdm_core.adapter import Adapter, load_tensors, take_adapter
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.doctor import Diagnosis
from mpqdm_core.errors import Cancelled, DataError, LoadError
from mpqdm_core.finetune_losses import CompileBackend
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import Finetuner, StepRecord
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.recording import memory_errors
from mpqdm_core.teacher import TeacherRecord
from mpqdm_core.trainable import held_weights

CHECKPOINT_EVERY_S = 5.0
HELD_OUT_PICTURES = 4  # of the record; the last ones, which training does not see


@dataclass(frozen=True, kw_only=True, eq=False)
class FinetuneResult:
    """What a run leaves."""

    adapter: Adapter
    finished: bool  # False: stopped before the last step; the adapter is usable all the same


def finetune(
    denoiser: Denoiser,
    calibration: Calibration,
    plan: BitPlan,
    record: TeacherRecord,
    settings: FinetuneSettings | None = None,
    quant_settings: QuantSettings | None = None,
    *,
    checkpoint: str | Path | None = None,
    report: Report = silent,
    on_step: Callable[[StepRecord], None] | None = None,
    on_examine: Callable[[Diagnosis], None] | None = None,
    examine_every: int = 25,
    on_preview: Callable[[int, Denoiser], None] | None = None,
    preview_every: int = 50,
    compile_backend: CompileBackend | None = None,
) -> FinetuneResult:
    """Fine-tune a quantized model towards full precision.

    Args:
        denoiser: full precision; not touched.
        calibration: taken from it.
        plan: bits of every channel.
        record: what the teacher did along its own way; its last pictures are held out.
        settings: None takes the defaults.
        quant_settings: None takes the defaults.
        checkpoint: file that is written every few seconds; if it is there, the run goes on from it. It is
            deleted when the last step is done.
        report: told every step; `Cancelled` raised by it stops the run, and what was learned so far is
            returned.
        on_step: hears every step's loss.
        on_examine: hears the doctor every `examine_every` steps, the first time before the first one.
        examine_every: see above; looking takes about as long as a step.
        on_preview: given the steps taken and the student as it is then, every `preview_every` steps, the
            first time before the first one; may draw with it and raise `Cancelled`, and must not keep it.
        preview_every: see above.
        compile_backend: of `torch.compile`, such as "inductor", for the network in training steps; see
            `Finetuner`. Meant for GPUs: on CPUs steps are hardly faster with it.

    Raises:
        DataError: plan, calibration, record or checkpoint belong to something else, or the loss is not
            finite; the checkpoint then holds the last good state.
        SettingsError: settings are not possible, or memory ran out.
        LoadError: the checkpoint is damaged.
    """
    settings, quant_settings = settings or FinetuneSettings(), quant_settings or QuantSettings()
    training, held_out = split_record(record)
    student = quantize(denoiser, calibration, plan, quant_settings, freeze=False)
    tuner = Finetuner(student, training, settings, teacher=denoiser, compile_backend=compile_backend)
    saver = _Checkpoint(checkpoint, _fingerprint(student, record, settings))
    try:
        with memory_errors(f"lower the batch size, which is {settings.batch_size}"):
            before = tuner.evaluate(held_out)
            saver.restore(tuner)
            watchers = _Watchers(
                report=report,
                on_step=on_step or _nobody,
                on_examine=on_examine,
                examine_every=examine_every,
                on_preview=on_preview,
                preview_every=preview_every,
            )
            finished = _train(tuner, saver, watchers)
            after = tuner.evaluate(held_out)
            adapter = take_adapter(student, settings, timesteps=record.timesteps, steps=tuner.done)
            saver.finish(tuner, finished)
            load_tensors(student, adapter)  # its zero-points are whole
            merged = tuner.evaluate(held_out)
    finally:
        tuner.close()
    losses = {
        f"{term} {when}": value
        for when, measured in (("before", before), ("after", after), ("merged", merged))
        for term, value in measured.items()
    }
    return FinetuneResult(adapter=replace(adapter, losses=losses), finished=finished)


def split_record(record: TeacherRecord) -> tuple[TeacherRecord, TeacherRecord]:
    """Pictures to train on, and the last few to judge by; a record too small for that serves as both."""
    if record.pictures < 3 * HELD_OUT_PICTURES:
        return record, record
    return record.part(0, record.pictures - HELD_OUT_PICTURES), record.part(
        record.pictures - HELD_OUT_PICTURES, record.pictures
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Watchers:
    """Who hears what of a run; see `finetune`."""

    report: Report
    on_step: Callable[[StepRecord], None]
    on_examine: Callable[[Diagnosis], None] | None
    examine_every: int
    on_preview: Callable[[int, Denoiser], None] | None
    preview_every: int

    def look(self, tuner: Finetuner) -> None:
        """What is due before the next step."""
        if self.on_preview is not None and tuner.done % self.preview_every == 0:
            with torch.no_grad(), held_weights(tuner.layers):
                self.on_preview(tuner.done, tuner.student.denoiser)
        if self.on_examine is not None and tuner.done % self.examine_every == 0:
            self.on_examine(tuner.examine())


def _train(tuner: Finetuner, saver: _Checkpoint, watchers: _Watchers) -> bool:
    """Take the steps that are left; return whether none is left, False where the caller stopped it."""
    total = tuner.settings.steps
    try:
        watchers.report(tuner.done, total, "fine-tuning")
        while tuner.done < total:
            watchers.look(tuner)
            watchers.on_step(tuner.step())
            saver.save(tuner)
            watchers.report(tuner.done, total, "fine-tuning")
    except Cancelled:
        return False
    return True


class _Checkpoint:
    """One file with the state of a run, or none at all."""

    def __init__(self, path: str | Path | None, fingerprint: str) -> None:
        self._path = None if path is None else Path(path)
        self._fingerprint = fingerprint
        self._saved_at = time.monotonic()

    def restore(self, tuner: Finetuner) -> None:
        """Go on from the file, if there is one."""
        if self._path is None or not self._path.exists():
            return
        try:
            state = torch.load(self._path, weights_only=True, map_location="cpu")
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise LoadError(
                f"the checkpoint {self._path.name} is damaged: delete it to start again"
            ) from error
        if fingerprint != self._fingerprint:
            raise DataError(
                f"the checkpoint {self._path.name} is of another run (model, plan, settings or teacher's "
                "record differ): delete it, or choose another file"
            )
        tuner.load_state_dict(state)

    def save(self, tuner: Finetuner) -> None:
        """Write if the last time is a few seconds ago."""
        if time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self._write(tuner)

    def finish(self, tuner: Finetuner, finished: bool) -> None:
        """Remove the file of a finished run; a stopped one can go on from it."""
        if self._path is None:
            return
        if finished:
            self._path.unlink(missing_ok=True)
        else:
            self._write(tuner)

    def _write(self, tuner: Finetuner) -> None:
        state = tuner.state_dict()
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in state["tensors"].values())
        if self._path is None or not finite:  # the last good state stays
            return
        partial = self._path.with_name(self._path.name + ".part")
        torch.save({**state, "fingerprint": self._fingerprint}, partial)
        os.replace(partial, self._path)
        self._saved_at = time.monotonic()


def _fingerprint(student: QuantizedDenoiser, record: TeacherRecord, settings: FinetuneSettings) -> str:
    parts = [student.content_hash, record.content_hash, settings.as_dict()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _nobody(_: StepRecord) -> None:
    """Listen to nothing."""
