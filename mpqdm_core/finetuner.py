"""Fine-tuning of a quantized denoiser towards its teacher: low-rank corrections and learned scales.

One optimiser step looks at a window of consecutive timesteps: the weights are rounded once for all of them,
each is forwarded, and one backward pass follows. The state can be saved after any step; a run that goes on
from it does what it would have done.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.doctor import ClipCounter, Diagnosis, flags_of, term_gradients
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.families import FAMILIES
from mpqdm_core.finetune_losses import CompileBackend, WindowLosses
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.gradient_workers import GradientWorkers
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.slot_table import SlotTable
from mpqdm_core.teacher import TeacherRecord, record_teacher
from mpqdm_core.trainable import (
    ScaleGuard,
    held_weights,
    hold_exempt,
    make_trainable,
    mean_prescale,
    parameter_groups,
    rounded_leaves,
    step_weights,
    trained_biases,
    trained_layers,
    trained_tensors,
    workers_for,
)
from mpqdm_core.windows import Window, WindowOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one optimiser step saw, before it changed anything."""

    step: int  # counted from 1
    loss: float  # weighted sum
    timesteps: tuple[int, ...]  # of its window


class Finetuner:
    """A student in training. Use `finetune` unless you want to drive the steps yourself."""

    def __init__(
        self,
        student: QuantizedDenoiser,
        record: TeacherRecord,
        settings: FinetuneSettings,
        *,
        teacher: Denoiser | None = None,
        compile_backend: CompileBackend | None = None,
    ) -> None:
        """Attach corrections to the student's layers and make an optimiser.

        Args:
            student: made with `quantize(..., freeze=False)`; trained in place.
            record: of the student's full-precision model, on the student's timesteps.
            settings: of the run.
            teacher: full precision; needed when the student's own way is followed.
            compile_backend: of `torch.compile`, such as "inductor", for the network in training steps; None:
                not compiled. Changes rounding only; the first step takes a minute or more.

        Raises:
            DataError: record and student do not belong together.
            SettingsError: the settings need something that is not there.
        """
        self.student, self.settings = student, settings
        self.layers = trained_layers(student)
        _check(student, record, settings, teacher is not None)
        self._record, self._teacher = record, teacher
        self._rollout: TeacherRecord | None = None  # the student's own way in this pass
        self.done = 0
        make_trainable(self.layers, settings)
        quantizers = [layer.activation for layer in self.layers.values() if layer.activation.bits is not None]
        units = None if settings.relative_ranges else [mean_prescale(quantizer) for quantizer in quantizers]
        self.slots = SlotTable(quantizers, units) if quantizers else None
        self._in_units = settings.relative_ranges or not settings.prescaled_rates
        self._guard = ScaleGuard(self.layers, self.slots)
        self.optimizer = torch.optim.Adam(
            parameter_groups(self.layers, self.slots, settings), lr=0.0, fused=True
        )
        self._rates = [float(group["rate"]) for group in self.optimizer.param_groups]
        self.order = WindowOrder(
            timesteps=len(record.timesteps),
            window=settings.window,
            pictures=record.pictures,
            batch_size=settings.batch_size,
            seed=settings.seed,
            shuffle=settings.shuffle,
        )
        network = student.denoiser.network
        tap = FAMILIES[student.denoiser.family].feature_tap(network)
        self.losses = WindowLosses(
            network,
            tap,
            settings,
            step_weights(student.denoiser, record, settings),
            clock=next(iter(self.layers.values())).activation.clock,
            compile_backend=compile_backend,
        )
        # It is compiled in one thread.
        workers = 1 if compile_backend else workers_for(network, settings.shares)
        self._workers = GradientWorkers(workers)
        hold_exempt(student)

    def step(self) -> StepRecord:
        """One optimiser step.

        Raises:
            DataError: the loss is not finite; nothing was changed.
        """
        window, record = self._next()
        loss = self._backward(record, window)
        if not torch.isfinite(torch.tensor(loss)):
            raise DataError(
                f"the loss is {loss} at step {self.done + 1}: lower the learning rates, or go on from the "
                "last good state with more pictures in a batch"
            )
        share = 1.0 - self.done / self.settings.steps
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        before = self.slots.values() if self.slots and self._in_units else None
        self.optimizer.step()
        if self.slots and before is not None:
            self.slots.count_in_units(before)
        self._guard.apply()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return StepRecord(
            step=self.done, loss=loss, timesteps=tuple(record.timesteps[slot] for slot in window.slots)
        )

    def evaluate(self, record: TeacherRecord, pictures: int | None = None) -> dict[str, float]:
        """Mean unweighted losses over all windows of a record, without training; by term.

        Args:
            record: usually of pictures that were not trained on.
            pictures: the first so many of the record; None for all.
        """
        chosen = torch.arange(min(pictures or record.pictures, record.pictures))
        with torch.no_grad(), held_weights(self.layers):
            windows = [functools.partial(self.losses.terms, record, w, chosen) for w in self.order.windows]
            each = self._workers.forward(windows)
        return {term: sum(float(losses[term]) for losses in each) / len(each) for term in each[0]}

    def examine(self, pictures: int = 4) -> Diagnosis:
        """Look at gradients, scales and clipping in the window that comes next; changes nothing.

        Args:
            pictures: the first so many of the window's.
        """
        window, record = self._next()
        counter = ClipCounter(self.layers)
        with rounded_leaves(self.layers) as (_, leaves), counter.listening(), torch.enable_grad():
            losses = self.losses.terms(record, window.slots, window.pictures[:pictures])
        weights = {term: getattr(self.settings, f"{term}_weight") for term in losses}
        norms, total = term_gradients(losses, weights, [*leaves.values(), *self._columns()])
        layer_norms = {name: float(g.norm()) for name, g in zip(leaves, total, strict=False)}
        ratios, clipped = self._guard.ratios(), counter.shares()
        return Diagnosis(
            step=self.done,
            term_gradients=norms,
            layer_gradients=layer_norms,
            scale_ratio=ratios,
            clipped_inputs=clipped,
            flags=flags_of(norms, ratios, clipped),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on: trained tensors, optimiser, step, and the rollout in use."""
        return {
            "tensors": {
                name: tensor.detach().clone() for name, tensor in trained_tensors(self.layers).items()
            },
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "rollout": None if self._rollout is None else self._rollout.tensors(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same run.

        Raises:
            DataError: it is of another run.
        """
        own = trained_tensors(self.layers)
        if {name: t.shape for name, t in own.items()} != {n: t.shape for n, t in state["tensors"].items()}:
            raise DataError("this checkpoint is of a run with other layers or another rank")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state["tensors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = int(state["done"])
        self._rollout = None if state["rollout"] is None else self._record.with_tensors(state["rollout"])

    def close(self) -> None:
        """Let go of threads and hooks; the student keeps what it has learned."""
        self._workers.close()
        self.losses.close()

    def _columns(self) -> list[torch.nn.Parameter]:
        """The input ranges that take gradients."""
        return self.slots.columns if self.slots else []

    def _next(self) -> tuple[Window, TeacherRecord]:
        window, record = self.order.at(self.done), self._record_for()
        if record is not self._record:  # the student's way was walked for these very pictures
            window = Window(slots=window.slots, pictures=torch.arange(record.pictures))
        return window, record

    def _record_for(self) -> TeacherRecord:
        """The teacher's record, or what the teacher says along the student's way in this pass."""
        if self.settings.way == "teacher" or self._teacher is None:
            return self._record
        turn, position = divmod(self.done, self.order.per_pass)
        if position == 0 or self._rollout is None:
            self._rollout = record_teacher(
                self._teacher,
                pictures=min(self.settings.batch_size, self._record.pictures),
                seed=self.settings.seed + 1 + turn,
                sampler=self._record.sampler,
                features=self.settings.needs_features,
                along=self.student.denoiser,
                batch_size=self.settings.batch_size,
            )
        return self._rollout

    def _backward(self, record: TeacherRecord, window: Window) -> float:
        """Gradients of one window; the rounded weights are made once and differentiated once."""
        parts = window.pictures.chunk(self.settings.shares)
        whole = len(window.pictures)

        def loss_of(part: Tensor) -> Tensor:
            total = self.losses.weighted(self.losses.terms(record, window.slots, part, compiled=True))
            share = len(part) / whole if self.settings.reduction == "mean" else 1.0
            return total * share * len(parts)

        with rounded_leaves(self.layers) as (rounded, leaves):
            inputs = [*leaves.values(), *trained_biases(self.layers), *self._columns()]
            losses = self._workers.backward(inputs, [functools.partial(loss_of, part) for part in parts])
        reached = [name for name, leaf in leaves.items() if leaf.grad is not None]
        torch.autograd.backward([rounded[n] for n in reached], [leaves[n].grad for n in reached])
        if self.slots:
            self.slots.collect(window.slots)
        return sum(losses) / len(losses)


def _check(
    student: QuantizedDenoiser, record: TeacherRecord, settings: FinetuneSettings, has_teacher: bool
) -> None:
    if record.denoiser_hash != student.source_hash:
        raise DataError("the teacher's record was taken from another model than the student's")
    frozen = [name for name, layer in student.layers.items() if layer.frozen]
    if frozen:
        raise DataError(f"layer {frozen[0]} is frozen: make the student with quantize(..., freeze=False)")
    if settings.needs_features and record.feature is None:
        raise SettingsError("the relation and feature losses need a teacher's record with features")
    if settings.way == "student" and not has_teacher:
        raise SettingsError("following the student's own way needs the teacher itself, not only its record")
