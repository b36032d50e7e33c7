"""How much longer the quantized network samples than the full-precision one, on this machine's CPU.

`ratio` is the median over repeats of quantized / full precision wall time of the same pictures, decoder
included; `steps_ratio` the same for the denoising steps alone, where the difference lies. Both models run in
one process, in turn, the first of each alternating, after a warm-up. Quantization is simulated: weights are
rounded once and kept as floats, activations are rounded at every step. `integers_ratio` is that of the same
network with its sums done in integers, where the CPU has instructions for it. Run with
`python -m benchmarks.sampling`, `--quick` for fewer repeats.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from benchmarks._record import Figure, arguments, record
from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.integer_layers import multiply_integers_
from mpqdm_core.loading import load_denoiser
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample

MODEL = "sprites-ldm"
WEIGHT_BITS = 4  # the width does not change the time: frozen weights are floats
PICTURES = 16
WARM_UPS = 1
PAIRS = 25
QUICK_PAIRS = 7
BAR = 1.3
SEED = 0


@dataclass
class StepClock:
    """A report that notes when it was called: first before the first step, last after the last one."""

    moments: list[float] = field(default_factory=list)

    def __call__(self, _done: int, _total: int, _message: str) -> None:
        """Note the moment."""
        self.moments.append(time.perf_counter())


def time_sampling(denoiser: Denoiser) -> tuple[float, float]:
    """Seconds of drawing all pictures in one batch: altogether, and in the denoising steps alone."""
    labels = [index % denoiser.num_classes for index in range(PICTURES)] if denoiser.num_classes else None
    clock = StepClock()
    start = time.perf_counter()
    sample(denoiser, labels=labels, seeds=range(PICTURES), batch_size=PICTURES, report=clock)
    return time.perf_counter() - start, clock.moments[-1] - clock.moments[0]


def quantized_copy(denoiser: Denoiser) -> Denoiser:
    """The model at uniform weight bits and 8-bit activations, frozen."""
    layers = denoiser.quantizable_layers
    plan = BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        WEIGHT_BITS,
    )
    calibration = calibrate(denoiser, CalibrationSettings(samples=8, batch_size=8, seed=SEED))
    return quantize(denoiser, calibration, plan).denoiser


def measure(repeats: int, source: str = MODEL) -> dict[str, list[float]]:
    """Raw seconds of every repeat, of both models."""
    full = load_denoiser(source)
    models = {"full_precision": full, "quantized": quantized_copy(full)}
    if multiply_integers_((integers := quantized_copy(full)).network):
        models["integers"] = integers
    times: dict[str, list[float]] = {f"{name}{part}_s": [] for name in models for part in ("", "_steps")}
    for repeat in range(-WARM_UPS, repeats):
        for name in sorted(models, reverse=repeat % 2 == 0):
            whole, steps = time_sampling(models[name])
            if repeat >= 0:
                times[f"{name}_s"].append(whole)
                times[f"{name}_steps_s"].append(steps)
    return times


def ratios(times: dict[str, list[float]], part: str, model: str = "quantized") -> list[float]:
    """A model over full precision, repeat by repeat."""
    pairs = zip(times[f"{model}{part}_s"], times[f"full_precision{part}_s"], strict=True)
    return [quantized / full for quantized, full in pairs]


def main() -> None:
    """Time both models and write the record."""
    times = measure(QUICK_PAIRS if arguments(__doc__).quick else PAIRS)
    whole, steps = ratios(times, ""), ratios(times, "_steps")
    value = statistics.median(whole)
    figures = {
        "ratio": Figure(value=value, unit="x", bar=BAR, met=value <= BAR),
        "steps_ratio": Figure(value=statistics.median(steps), unit="x", bar=None, met=None),
    }
    repeats = {**times, "ratio": whole, "steps_ratio": steps}
    if "integers_s" in times:
        repeats["integers_ratio"] = ratios(times, "", "integers")
        value = statistics.median(repeats["integers_ratio"])
        figures["integers_ratio"] = Figure(value=value, unit="x", bar=None, met=None)
    record("sampling", figures=figures, repeats=repeats, seed=SEED)


if __name__ == "__main__":
    main()
