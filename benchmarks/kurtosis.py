"""Kurtosis of all layers of Stable Diffusion v1.4's U-Net: its shapes, random weights.

    python -m benchmarks.kurtosis [--quick]

`pass_ratio` is the time of `channel_kurtosis` over all layers divided by that of one `abs().sum()` over the
same tensors; `scipy_speedup` the time of `scipy.stats.kurtosis(fisher=False)` divided by ours, on the same
float32 data. The three alternate. `--quick` takes about a tenth of the layers of every size.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from benchmarks._record import Figure, arguments, record
from mpqdm_core.kurtosis import channel_kurtosis

PASS_BAR, SCIPY_BAR, MEMORY_BAR_MIB = 4.0, 10.0, 1024.0
TOLERANCE = 2e-6  # relative, against float64; stated by channel_kurtosis
SEED = 0

Shape = tuple[int, ...]


def sd14_shapes() -> list[Shape]:
    """Weight shapes of all convolutions and linear layers of the U-Net of SD v1.4, about 860 M weights."""
    widths, embedding, text = (320, 640, 1280, 1280), 1280, 768

    def residual(inputs: int, outputs: int) -> list[Shape]:
        shapes: list[Shape] = [(outputs, inputs, 3, 3), (outputs, embedding), (outputs, outputs, 3, 3)]
        return [*shapes, (outputs, inputs, 1, 1)] if inputs != outputs else shapes

    def transformer(width: int) -> list[Shape]:
        own, cross = [(width, width)] * 4, [(width, width), (width, text), (width, text), (width, width)]
        feed_forward: list[Shape] = [(8 * width, width), (width, 4 * width)]
        return [(width, width, 1, 1), *own, *cross, *feed_forward, (width, width, 1, 1)]

    shapes: list[Shape] = [(320, 4, 3, 3), (embedding, 320), (embedding, embedding)]
    skips, width = [320], 320
    for level, outputs in enumerate(widths):
        for _ in range(2):
            shapes += residual(width, outputs)
            shapes += transformer(outputs) if level < 3 else []
            width = outputs
            skips.append(width)
        if level < 3:
            shapes.append((width, width, 3, 3))
            skips.append(width)
    shapes += [*residual(1280, 1280), *transformer(1280), *residual(1280, 1280)]
    for level, outputs in reversed(list(enumerate(widths))):
        for _ in range(3):
            shapes += residual(width + skips.pop(), outputs)
            shapes += transformer(outputs) if level < 3 else []
            width = outputs
        if level > 0:
            shapes.append((width, width, 3, 3))
    return [*shapes, (4, 320, 3, 3)]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worst_error(weights: list[Tensor]) -> float:
    """Largest relative difference from scipy in float64, one layer of every shape, 64 channels each."""
    errors = []
    for weight in {tuple(weight.shape): weight for weight in weights}.values():
        rows = weight[:64].flatten(1)
        expected = scipy.stats.kurtosis(rows.double().numpy(), axis=1, fisher=False)
        errors.append(float(np.abs(channel_kurtosis(rows).numpy() / expected - 1.0).max()))
    return max(errors)


def main() -> None:
    """Measure and write the record."""
    quick = arguments(__doc__).quick
    shapes = sorted(sd14_shapes())[:: 10 if quick else 1]
    generator = torch.Generator().manual_seed(SEED)
    weights = [torch.randn(shape, generator=generator).mul_(0.02) for shape in shapes]
    rounds, scipy_rounds = (3, 1) if quick else (5, 2)
    channel_kurtosis(weights[-1][:64])
    before = peak_mib()
    kurtosis_s = [timed(lambda: [channel_kurtosis(weight) for weight in weights])]
    extra_mib = peak_mib() - before
    pass_s, scipy_s = [], []
    for index in range(rounds):
        pass_s.append(timed(lambda: [weight.abs().sum() for weight in weights]))
        kurtosis_s.append(timed(lambda: [channel_kurtosis(weight) for weight in weights]))
        if index < scipy_rounds:
            scipy_s.append(
                timed(
                    lambda: [
                        scipy.stats.kurtosis(weight.flatten(1).numpy(), axis=1, fisher=False)
                        for weight in weights
                    ]
                )
            )
    ours = statistics.median(kurtosis_s)
    ratio, speedup = ours / statistics.median(pass_s), statistics.median(scipy_s) / ours
    error = worst_error(weights)
    figures = {
        "pass_ratio": Figure(ratio, "x", bar=PASS_BAR, met=ratio <= PASS_BAR),
        "scipy_speedup": Figure(speedup, "x", bar=SCIPY_BAR, met=speedup >= SCIPY_BAR),
        "extra_memory_mib": Figure(extra_mib, "MiB", bar=MEMORY_BAR_MIB, met=extra_mib < MEMORY_BAR_MIB),
        "relative_error": Figure(error, "", bar=TOLERANCE, met=error <= TOLERANCE),
        "weights_m": Figure(sum(weight.numel() for weight in weights) / 1e6, "million weights"),
    }
    repeats = {"kurtosis_s": kurtosis_s, "abs_sum_s": pass_s, "scipy_s": scipy_s}
    notes = ["Quick run: every tenth layer."] if quick else []
    record("kurtosis", figures=figures, repeats=repeats, seed=SEED, notes=notes)


if __name__ == "__main__":
    main()
