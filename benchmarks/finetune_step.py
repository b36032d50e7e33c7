"""How fast fine-tuning steps are, against a straightforward trainer in the same run.

    python -m benchmarks.finetune_step [--quick]

`speedup_<device>` is the time of the straightforward step over that of ours: it runs the teacher again at
every step, rounds every weight with three masked copies (one a bit-width), and forms each low-rank correction
by sending an identity matrix through the two factors, once for every timestep of the window. Same student,
same pictures, same windows, same optimiser, same number of threads. `trd_overhead` is the share by which the
relation loss lengthens a window of task-only training. `peak_ratio` is the peak of allocated memory of a step
over that of a full-precision forward and backward pass of the same rows. `stop_s` is the longest of a few
times from Stop to a usable adapter with the run's memory given back, `memory_kept_mib` what was not.
`compiled_speedup_<device>` is the time of our step over that of the same with `torch.compile`, and
`compiling_s` what its first step takes; not with `--quick`.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks._record import Figure, arguments, record
from benchmarks._stopping import time_stop
from mpqdm_core.affine import QParams, fake_quantize
from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import Finetuner
from mpqdm_core.layers import QuantConv2d, QuantLayer
from mpqdm_core.loading import load_denoiser
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.teacher import TeacherRecord, record_teacher

MODEL = "sprites-ldm"
SPEEDUP_BAR, OVERHEAD_BAR = 2.0, 0.15
STOP_BAR_S = 5.0
STOPS = 2
STOP_PICTURES = 20  # of the teacher's record, as the page takes for such a batch
SEED = 0
STUDENT = QuantSettings(grid="affine", activation_bits=4)
BITS = (1, 2, 3)  # three widths a layer, as the swap around 2 bits gives
SETTINGS = FinetuneSettings(steps=10_000, batch_size=4, window=2, rank=32, low_rank_rate=1e-2, shuffle=False)
"""Four pictures, each with both halves of guidance, as the papers' released code."""


class StraightforwardLayer(nn.Module):
    """Does what `QuantLayer` does, the obvious way: nothing is shared between calls."""

    def __init__(self, layer: QuantLayer) -> None:
        """Take over a layer in training, with its parameters."""
        super().__init__()
        self.layer = layer

    def weight(self) -> Tensor:
        """The rounded weight: correction through an identity matrix, one masked copy for each bit-width."""
        layer = self.layer
        weight = layer.weight
        if layer.low_rank is not None:
            identity = torch.eye(layer.low_rank.a.shape[2])
            inner = functional.linear(identity, layer.low_rank.a[0])  # (columns, r)
            weight = weight + functional.linear(inner, layer.low_rank.b[0]).T.reshape(weight.shape)
        if layer.activation.prescale is not None:
            weight = weight / layer.activation.prescale.view(1, -1, *[1] * (weight.ndim - 2))
        result = torch.zeros_like(weight)
        for bits in BITS:
            mask = (layer.bits == bits).view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
            q = QParams(
                scale=layer.weight_scale,
                zero_point=layer.weight_zero_point,
                bits=torch.full_like(layer.bits, bits),
                grid="affine",
            )
            result = result + fake_quantize(torch.where(mask, weight, 0.0), q) * mask
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        layer, x = self.layer, self.layer.activation(x)
        if isinstance(layer, QuantConv2d):
            return functional.conv2d(
                x, self.weight(), layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        return functional.linear(x, self.weight(), layer.bias)


class StraightforwardTrainer:
    """The reference: one window a step like ours, the teacher asked every time."""

    def __init__(self, tuner: Finetuner, teacher: Denoiser) -> None:
        """Take over the student of a tuner, which is not used any more."""
        self.tuner, self.teacher = tuner, teacher
        network = tuner.student.denoiser.network
        for name, layer in tuner.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, StraightforwardLayer(layer))
        self.done = 0

    def step(self, record: TeacherRecord) -> None:
        """One optimiser step."""
        window = self.tuner.order.at(self.done)
        network, teacher = self.tuner.student.denoiser.network, self.teacher.network
        loss = torch.zeros(())
        for slot in window.slots:
            rows = record.arguments(slot, window.pictures, next(network.parameters()).device)
            with torch.no_grad():
                target = teacher(**rows).sample
            loss = loss + (network(**rows).sample - target).square().mean()
        loss.backward()
        slots = self.tuner.slots
        if slots is not None:
            slots.collect(window.slots)
        self.tuner.optimizer.step()
        self.tuner.optimizer.zero_grad(set_to_none=True)
        self.done += 1


def swap_plan(denoiser: Denoiser) -> BitPlan:
    """A tenth of each layer's channels a bit up, as many a bit down, around two bits."""
    layers = denoiser.quantizable_layers
    plan = BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        2,
    )
    bits = plan.bits.copy()
    for first, end in zip(plan.layer_start[:-1], plan.layer_start[1:], strict=True):
        group = (end - first) // 10
        bits[first : first + group] = 3
        bits[end - group : end] = 1
    return replace(plan, bits=bits)


def make_student(denoiser: Denoiser, calibration: Calibration) -> QuantizedDenoiser:
    """A student in training: three bit-widths in each layer, the paper's grid and pre-scaling."""
    return quantize(denoiser, calibration, swap_plan(denoiser), STUDENT, freeze=False)


def seconds(step: Callable[[], object], count: int) -> float:
    """Mean seconds of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def peak_mib(work: Callable[[], object]) -> float:
    """How far resident memory rises above where it was while `work` runs; Linux only, else NaN."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or memory freed earlier would be used again unseen
        with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")
        before = _status("VmRSS")
        work()
        return (_status("VmHWM") - before) / 1024
    except (OSError, AttributeError):
        return float("nan")


def _status(field: str) -> float:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(float(line.split()[1]) for line in lines if line.startswith(field))


def full_precision_pass(denoiser: Denoiser, teacher_record: TeacherRecord) -> Callable[[], object]:
    """Forward and backward of the rows of one window through the full-precision network."""
    pictures = torch.arange(SETTINGS.batch_size)
    parameters = list(denoiser.network.parameters())

    def work() -> None:
        for parameter in parameters:
            parameter.requires_grad_(True)
        losses = [
            denoiser.network(**teacher_record.arguments(slot, pictures, parameters[0].device)).sample
            for slot in range(SETTINGS.window)
        ]
        torch.autograd.grad(
            torch.stack([loss.square().mean() for loss in losses]).sum(), parameters, allow_unused=True
        )
        for parameter in parameters:
            parameter.requires_grad_(False)

    return work


def measure(repeats: int, steps: int, *, compiled: bool) -> dict[str, list[float]]:
    """Raw seconds a step of every repeat, in turn; `compiled` asks for those of `torch.compile` too."""
    denoiser = load_denoiser(MODEL)
    calibration = calibrate(denoiser, CalibrationSettings(samples=8, batch_size=8, seed=SEED))
    teacher_record = record_teacher(denoiser, pictures=8, seed=SEED)

    def tuner(compile_backend: str | None = None, **changes: float) -> Finetuner:
        student, settings = make_student(denoiser, calibration), replace(SETTINGS, **changes)
        return Finetuner(student, teacher_record, settings, compile_backend=compile_backend)

    ours, relation = tuner(), tuner(relation_weight=1.0)
    plain = StraightforwardTrainer(tuner(), denoiser)
    contenders: dict[str, Callable[[], object]] = {
        "ours": ours.step,
        "straightforward": lambda: plain.step(teacher_record),
        "with_relation": relation.step,
    }
    tuners = [ours, relation, plain.tuner]
    times: dict[str, list[float]] = {}
    if compiled:
        tuners.append(tuner("inductor"))
        try:
            times["compiling_s"] = [seconds(tuners[-1].step, 1)]
            contenders["compiled"] = tuners[-1].step
        except SettingsError as error:  # no compiler on this machine
            print(error)
    times |= {f"{name}_s": [] for name in contenders}
    for repeat in range(-1, repeats):
        for name in sorted(contenders, reverse=repeat % 2 == 0):
            duration = seconds(contenders[name], steps)
            if repeat >= 0:
                times[f"{name}_s"].append(duration)
    reference = full_precision_pass(denoiser, teacher_record)
    reference()
    times["peak_mib"] = [peak_mib(ours.step)]
    times["peak_full_precision_mib"] = [peak_mib(reference)]
    for one in tuners:
        one.close()
    shown = record_teacher(denoiser, pictures=STOP_PICTURES, seed=SEED)
    parts = denoiser, calibration, swap_plan(denoiser), shown, SETTINGS, STUDENT
    stops = [time_stop(*parts) for _ in range(1 + STOPS)][1:]
    times["stop_s"], times["memory_kept_mib"] = ([stop[place] for stop in stops] for place in (0, 1))
    return times


def main() -> None:
    """Measure and write the record."""
    quick = arguments(__doc__).quick
    times = measure(repeats=2 if quick else 7, steps=3 if quick else 10, compiled=not quick)
    middle = {name: statistics.median(values) for name, values in times.items()}
    where = "cuda" if torch.cuda.is_available() else "cpu"
    speedup = middle["straightforward_s"] / middle["ours_s"]
    overhead = middle["with_relation_s"] / middle["ours_s"] - 1
    figures = {
        f"speedup_{where}": Figure(speedup, "x", bar=SPEEDUP_BAR, met=speedup >= SPEEDUP_BAR),
        f"steps_per_s_{where}": Figure(1 / middle["ours_s"], "steps/s"),
        "trd_overhead": Figure(overhead, "share", bar=OVERHEAD_BAR, met=overhead < OVERHEAD_BAR),
        "peak_mib": Figure(middle["peak_mib"], "MiB"),
        "peak_full_precision_mib": Figure(middle["peak_full_precision_mib"], "MiB"),
        "stop_s": Figure(max(times["stop_s"]), "s", bar=STOP_BAR_S, met=max(times["stop_s"]) < STOP_BAR_S),
        "memory_kept_mib": Figure(middle["memory_kept_mib"], "MiB"),
    }
    if "compiled_s" in middle:
        figures[f"compiled_speedup_{where}"] = Figure(middle["ours_s"] / middle["compiled_s"], "x")
        figures["compiling_s"] = Figure(middle["compiling_s"], "s")
    record("finetune_step", figures=figures, repeats=times, seed=SEED)


if __name__ == "__main__":
    main()
