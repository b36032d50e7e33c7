"""Packed models: size, speed of unpacking, export of an SD v1.4-shaped U-Net, memory while sampling.

    python -m benchmarks.packing [--quick]

`overhead` is what the denoiser's file of sprites-ldm (2 bits on average, half-precision scales) has beyond
bits x weights and the tables that docs/packed-format.md states; its bar is 1% of that sum + 64 KiB, and
`overhead_sd14` the same for the SD v1.4-shaped model. `denoiser_ratio_w2` compares its quantized layers,
tables included, with float32. `unpack_mweights_per_s` is the slowest of 2, 3 and 4 bits, one convolution of
14.7 M weights to bfloat16, scales applied. Export is timed on the shapes of SD v1.4's U-Net with random
rounded weights; the memory is the process's peak beyond what it held before. `sampling_weight_memory` runs
every layer of that model from a packed file in a fresh process: peak while running beyond what the process
held before loading, as a share of float32 weights. `--quick` takes about a tenth of the layers and a smaller
convolution; with so few layers the largest is a large share of the weights: that memory has no bar then.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks._record import Figure, arguments, record
from benchmarks._sd14 import STEPS as SD14_STEPS
from benchmarks._sd14 import ManyLayers, quantized_model
from benchmarks.kurtosis import Shape, sd14_shapes
from mpqdm_core import CalibrationSettings, QuantSettings, calibrate, load_denoiser, quantize, sample
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.packing import PackedFolder, export_packed, load_packed
from mpqdm_core.packing.packed_weight import dequantize, pack_weight, read_tables
from mpqdm_core.packing.registration import load_network
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.weights import WeightParams

ALLOWED_SHARE, ALLOWED_KIB = 0.01, 64
RATIO_BAR, UNPACK_BAR, EXPORT_S_BAR, EXTRA_GIB_BAR, MEMORY_BAR = 12.0, 200.0, 60.0, 2.0, 0.25
SEED = 0
KIB, GIB = 2**10, 2**30
HALF, SINGLE = 2, 4  # bytes
WIDTHS = (2, 3, 4)
UNPACKED_SHAPE, QUICK_SHAPE = (1280, 1280, 3, 3), (640, 640, 3, 3)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resident_gib(*, peak: bool = False) -> float:
    """Memory of this process now, or the most since `forget_peak`."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return kib * KIB / GIB


def forget_peak() -> None:
    """Give unused memory back, so that its reuse does not hide a need, and measure the peak anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def stated_bytes(quantized: QuantizedDenoiser, timesteps: int) -> float:
    """Bits x weights and the stated tables, from plan and layers alone; scales in half precision."""
    denoiser, total = quantized.denoiser, 0.0
    for spec in denoiser.layers:
        packed = spec.exempt is None or (spec.exempt == "8-bit" and spec.macs > 0)
        if not packed:
            total += spec.parameters * SINGLE
            continue
        bits = quantized.plan.layer_bits(spec.name) if spec.exempt is None else np.full(spec.out_channels, 8)
        map_bits = math.ceil(math.log2(len(np.unique(bits))))
        total += (int(bits.sum()) * spec.weights_per_channel + map_bits * spec.out_channels) / 8
        total += HALF * spec.out_channels + (HALF + 1) * timesteps
        total += HALF * spec.in_channels if spec.exempt is None else 0
        total += SINGLE * (spec.parameters - spec.out_channels * spec.weights_per_channel)
    names = tuple(f"{spec.name}." for spec in denoiser.layers)
    others = (t for name, t in denoiser.network.state_dict().items() if not name.startswith(names))
    return total + sum(tensor.nbytes for tensor in others)


def sprites_model(quick: bool) -> QuantizedDenoiser:
    """The bundled model at 2 bits on average: a third of the channels each at 1, 2 and 3."""
    denoiser = load_denoiser("sprites-ldm")
    sampler = replace(denoiser.sampler, num_inference_steps=4 if quick else 20)
    calibration = calibrate(
        denoiser, CalibrationSettings(samples=4, batch_size=4, rows_per_step=64, sampler=sampler)
    )
    layers = denoiser.quantizable_layers
    bits = np.concatenate([np.arange(layer.out_channels) % 3 + 1 for layer in layers])
    plan = BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        2,
    )
    return quantize(denoiser, calibration, replace(plan, bits=bits.astype(np.int8)), QuantSettings())


def unpack_rates(shape: Shape, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Million weights a second by width, unpacking to bfloat16; and packing at the first width."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    rows_of = partial(torch.index_select, weight, 0)
    channels, million = shape[0], weight.numel() / 1e6
    rates: dict[str, list[float]] = {}
    packing: list[float] = []
    for bits in WIDTHS:
        params = WeightParams(
            scale=torch.linspace(0.1, 1.0, channels),
            zero_point=torch.full((channels,), 2 ** (bits - 1) - 0.5),
            bits=torch.full((channels,), bits),
            mid_rise=torch.ones(channels, dtype=torch.bool),
        )
        packed = pack_weight(params, shape, rows_of)
        tables = read_tables(packed.layout, packed.channel_map, packed.zero_points)
        dequantize(packed, tables, torch.bfloat16)
        seconds = [timed(partial(dequantize, packed, tables, torch.bfloat16)) for _ in range(rounds)]
        rates[f"unpack_{bits}_bits_mweights_per_s"] = [million / value for value in seconds]
        if bits == WIDTHS[0]:
            seconds = [timed(partial(pack_weight, params, shape, rows_of)) for _ in range(2)]
            packing = [million / value for value in seconds]
    return rates, packing


def draw_seconds(folder: Path, quick: bool) -> dict[str, list[float]]:
    """Seconds to draw four pictures with packed, cached and frozen weights; the three alternate."""
    models = {
        "draw_packed_s": load_packed(folder, cache_mib=0),
        "draw_cached_s": load_packed(folder),
        "draw_frozen_s": load_packed(folder, mode="frozen"),
    }
    settings = SamplerSettings(num_inference_steps=4 if quick else 20, guidance_scale=2.0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for round_number in range(2 if quick else 4):
        for name, model in models.items():
            drawing = partial(sample, model.denoiser, labels=[0, 1, 2, 3], seeds=range(4), settings=settings)
            value = timed(drawing)
            if round_number > 0:  # the first warms up
                seconds[name].append(value)
    return seconds


def memory_of_use(folder: Path, answer: object) -> None:
    """In a fresh process: send by how many GiB running a packed network exceeds the time before loading."""
    before = resident_gib()
    network = load_network(ManyLayers, folder / "unet")
    forget_peak()
    with torch.no_grad():
        for timestep in (0, SD14_STEPS - 1):
            network(torch.ones(1), torch.tensor(timestep))
    answer.send(resident_gib(peak=True) - before)  # type: ignore[attr-defined]


def sd14_figures(folder: Path, quick: bool) -> tuple[dict[str, Figure], float]:
    """Export time and memory, overhead, and memory while sampling; and the seconds to export."""
    shapes = sorted(sd14_shapes())[:: 10 if quick else 1]
    quantized = quantized_model(shapes, SEED)
    weights = sum(math.prod(shape) for shape in shapes)
    forget_peak()
    before = resident_gib()
    start = time.perf_counter()
    result = export_packed(quantized, folder)
    seconds = time.perf_counter() - start
    extra = resident_gib(peak=True) - before
    overhead = overhead_figure(quantized, result, SD14_STEPS)
    del quantized
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=memory_of_use, args=(folder, sender))
    process.start()
    sender.close()
    share = receiver.recv() * GIB / (weights * SINGLE)
    process.join()
    figures = {
        "export_sd14_s": Figure(seconds, "s", bar=EXPORT_S_BAR, met=seconds <= EXPORT_S_BAR),
        "export_sd14_extra_gib": Figure(extra, "GiB", bar=EXTRA_GIB_BAR, met=extra <= EXTRA_GIB_BAR),
        "overhead_sd14": overhead,
        "sampling_weight_memory": Figure(
            share,
            "of float32 weights",
            bar=None if quick else MEMORY_BAR,
            met=None if quick else share < MEMORY_BAR,
        ),
        "sd14_weights_m": Figure(weights / 1e6, "million weights"),
    }
    return figures, seconds


def overhead_figure(quantized: QuantizedDenoiser, result: PackedFolder, timesteps: int) -> Figure:
    """What a file has beyond the stated sum, and what it may have."""
    stated = stated_bytes(quantized, timesteps)
    overhead, allowed = (result.file_bytes - stated) / KIB, ALLOWED_SHARE * stated / KIB + ALLOWED_KIB
    return Figure(overhead, "KiB", bar=allowed, met=overhead <= allowed)


def main() -> None:
    """Measure and write the record."""
    quick = arguments(__doc__).quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates, packing = unpack_rates(QUICK_SHAPE if quick else UNPACKED_SHAPE, 3 if quick else 7)
        sprites = sprites_model(quick)
        result = export_packed(sprites, folder / "sprites")
        timesteps = len(next(iter(sprites.layers.values())).activation.clock.timesteps)
        drawing = draw_seconds(folder / "sprites", quick)
        sd14, export_s = sd14_figures(folder / "sd14", quick)
    layers = sprites.denoiser.quantizable_layers
    weights = sum(layer.out_channels * layer.weights_per_channel for layer in layers)
    ratio = weights * SINGLE / sum(item.bytes for item in result.items if item.of_quantized_layers)
    slowest = min(statistics.median(values) for values in rates.values())
    figures = {
        "overhead": overhead_figure(sprites, result, timesteps),
        "denoiser_ratio_w2": Figure(ratio, "x", bar=RATIO_BAR, met=ratio >= RATIO_BAR),
        "unpack_mweights_per_s": Figure(slowest, "M weights/s", bar=UNPACK_BAR, met=slowest >= UNPACK_BAR),
        "pack_mweights_per_s": Figure(statistics.median(packing), "M weights/s"),
        **{name: Figure(statistics.median(values), "s") for name, values in drawing.items()},
        **sd14,
    }
    repeats = {**rates, "pack_mweights_per_s": packing, **drawing, "export_sd14_s": [export_s]}
    notes = ["Quick run: every tenth layer, a smaller convolution, 4 steps."] if quick else []
    record("packing", figures=figures, repeats=repeats, seed=SEED, notes=notes)


if __name__ == "__main__":
    main()
