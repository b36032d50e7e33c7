"""Range search against a Python loop over channels that does the same: 3 bits, exponent 2.4, 80 candidates.

    python -m benchmarks.range_search [--quick]

`speedup_<shape set>` is the time of the loop divided by ours on the same weights; `same_scales_<shape set>`
the share of channels with the same scale. `ms_1280x11520` is stated. The loop takes its channels one by one,
in whole-row torch operations; on large shapes it is timed on a sample of the channels and scaled up.
`--quick` samples more thinly.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks._record import Figure, arguments, record
from mpqdm_core.affine import Grid
from mpqdm_core.range_search import search_range

BITS, EXPONENT, CANDIDATES = 3, 2.4, 80
SPEEDUP_BAR, SAME_BAR = 10.0, 0.999
SAME_WITHIN = 1e-5  # relative; neighbouring candidates are at least 1e-2 apart
SEED = 0
MODEL = Path(__file__).resolve().parents[1] / "assets" / "models" / "sprites-ldm" / "unet"
# (C_out, K): what a small U-Net of widths 64, 128 and 192 has; used where the bundled model is absent.
SMALL_UNET = (
    *[(64, 576), (64, 1152), (64, 1728), (128, 576), (128, 1152), (128, 1728), (128, 2304)],
    *[(192, 1152), (192, 1728), (192, 2880), (192, 3456)],
    *[(64, 64), (128, 128), (192, 192), (128, 256), (192, 256), (64, 256), (256, 256)],
)


def loop_over_channels(rows: Tensor, grid: Grid = "affine") -> Tensor:
    """The plain search: (C,) best scales of (C, n), one channel and one candidate at a time."""
    top = 2**BITS - 1
    scales = []
    for row in rows:
        low, high = row.min().clamp(max=0.0), row.max().clamp(min=0.0)
        if grid == "affine":
            full = (high - low) / top
            zero_point = torch.round(-low / full).clamp(0, top)
        else:
            full, zero_point = 2 * torch.maximum(-low, high) / 2**BITS, torch.tensor(2.0 ** (BITS - 1))
        best_score, best_scale = torch.tensor(torch.inf), full
        for index in range(CANDIDATES):
            scale = full * (1.0 - 0.01 * index)
            if grid == "affine":
                codes = torch.clamp(torch.round(row / scale) + zero_point, 0, top)
                restored = (codes - zero_point) * scale
            else:
                codes = torch.clamp(torch.floor(row / scale) + zero_point, 0, top)
                restored = (codes - zero_point + 0.5) * scale
            score = (row - restored).abs().pow(EXPONENT).mean()
            if score < best_score:
                best_score, best_scale = score, scale
        scales.append(best_scale)
    return torch.stack(scales)


def bundled_weights() -> list[Tensor]:
    """All convolution and linear weights of sprites-ldm as rows, or random ones of SMALL_UNET's shapes."""
    if not (MODEL / "config.json").exists():
        generator = torch.Generator().manual_seed(SEED)
        return [torch.randn(shape, generator=generator) for shape in SMALL_UNET]
    from diffusers import UNet2DModel

    network = UNet2DModel.from_pretrained(MODEL, use_safetensors=True, low_cpu_mem_usage=False)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.weight.detach().flatten(1).contiguous() for layer in layers]


def fast_seconds(weights: list[Tensor], grid: Grid, repeats: int) -> tuple[list[float], list[Tensor]]:
    """Wall times of searching all weights, first call dropped, and the scales."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        scales = [
            search_range(w, BITS, grid=grid, exponent=EXPONENT, candidates=CANDIDATES).scale for w in weights
        ]
        times.append(time.perf_counter() - start)
    return times[1:], scales


def compare(weights: list[Tensor], grid: Grid, every: int, repeats: int) -> tuple[list[float], float, float]:
    """Our times, the loop's time (scaled up from one channel in `every`), and the share of equal scales."""
    times, scales = fast_seconds(weights, grid, repeats)
    seconds, same, compared = 0.0, 0, 0
    for weight, ours in zip(weights, scales, strict=True):
        sample = weight[::every]
        start = time.perf_counter()
        theirs = loop_over_channels(sample, grid)
        seconds += (time.perf_counter() - start) * weight.shape[0] / sample.shape[0]
        same += int(((ours[::every] - theirs).abs() <= SAME_WITHIN * theirs).sum())
        compared += sample.shape[0]
    return times, seconds, same / compared


def main() -> None:
    """Measure and write the record."""
    quick = arguments(__doc__).quick
    generator = torch.Generator().manual_seed(SEED)
    weights = bundled_weights()
    square = [torch.randn(1280, 1280, generator=generator)]
    wide = torch.randn(1280, 11520, generator=generator)
    figures: dict[str, Figure] = {}
    repeats: dict[str, list[float]] = {}
    sets: list[tuple[str, list[Tensor], Grid, int]] = [
        ("sprites_ldm", weights, "affine", 32 if quick else 1),
        ("sprites_ldm_mid_rise", weights, "mid-rise", 32 if quick else 4),
        ("1280x1280", square, "affine", 32 if quick else 1),
        ("1280x11520", [wide], "affine", 128 if quick else 32),
    ]
    for name, tensors, grid, every in sets:
        times, loop_s, same = compare(tensors, grid, every, repeats=2 if quick else 7)
        ours = statistics.median(times)
        asked = name in ("sprites_ldm", "1280x1280")
        bar = SPEEDUP_BAR if asked else None
        speedup = loop_s / ours
        figures[f"speedup_{name}"] = Figure(
            speedup, "x", bar=bar, met=speedup >= SPEEDUP_BAR if asked else None
        )
        same_bar = SAME_BAR if asked else None
        figures[f"same_scales_{name}"] = Figure(
            same, "share of channels", bar=same_bar, met=same >= SAME_BAR if asked else None
        )
        figures[f"ms_{name}"] = Figure(1e3 * ours, "ms")
        repeats[f"search_s_{name}"], repeats[f"loop_s_{name}"] = times, [loop_s]
    source = (
        "bundled model" if (MODEL / "config.json").exists() else "random weights, shapes of a small U-Net"
    )
    notes = [f"sprites_ldm: {source}.", *(["Quick run: few channels through the loop."] if quick else [])]
    record("range_search", figures=figures, repeats=repeats, seed=SEED, notes=notes)


if __name__ == "__main__":
    main()
