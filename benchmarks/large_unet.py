"""Calibration and error table of a U-Net with SD v1.4's shapes, of one trajectory of four steps.

    python -m benchmarks.large_unet [--quick] [--folder runs/large_unet]

The network has random weights and is drawn from by a stock `StableDiffusionPipeline` with guidance, whose
text encoder and decoder are small. Both measurements are stopped half-way and gone on with from their files:
`steps_again` counts calls of the network that a calibration gone on with made a second time, `layers_again`
layers that the table measured a second time. `extra_memory_mib` is the largest memory beyond that of the
loaded model. Times hold the stop. `--quick` has a fifth of the channels and a quarter of the side.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from benchmarks._record import Figure, record
from benchmarks.streaming import peak_extra_mib
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.errors import Cancelled
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.progress import Report
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.schedules import step_count
from mpqdm_core.zoo.caption_encoder import build_text_encoder, build_tokenizer

SEED = 0
STEPS, GUIDANCE, TEXT_WIDTH = 4, 7.5, 768
STOPPED = 2  # steps
WIDTHS, SIDE = (320, 640, 1280, 1280), 64
QUICK_WIDTHS, QUICK_SIDE = (64, 128, 256, 256), 16
WORDS = ("a", "red", "star")


def build(quick: bool) -> Denoiser:
    """The pipeline with random weights."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer(WORDS)
    unet = UNet2DConditionModel(
        sample_size=QUICK_SIDE if quick else SIDE,
        block_out_channels=QUICK_WIDTHS if quick else WIDTHS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )
    stages = 4  # the picture's side is eight times the latent's
    vae = AutoencoderKL(
        block_out_channels=(8,) * stages,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        norm_num_groups=4,
        latent_channels=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=build_text_encoder(tokenizer, TEXT_WIDTH, layers=1, heads=12),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in (unet, vae, pipeline.text_encoder):
        part.eval().requires_grad_(False)
    return make_denoiser(
        pipeline,
        FAMILIES["stable-diffusion"],
        name="sd14-shapes",
        source="random weights",
        prompts=(" ".join(WORDS),),
    )


@contextmanager
def counted_calls() -> Iterator[list[float]]:
    """Counts what the network really computes, wherever a copy of it is called from."""
    calls: list[float] = []
    original = UNet2DConditionModel.forward

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        calls.append(time.perf_counter())
        return result

    UNet2DConditionModel.forward = forward
    try:
        yield calls
    finally:
        UNet2DConditionModel.forward = original


def stopping(at: int, told: list[str]) -> Report:
    """Writes down what it is told, and stops at the `at`-th time."""

    def report(done: int, total: int, message: str) -> None:
        told.append(message)
        print(f"{done} of {total} {message}", flush=True)
        if len(told) == at:
            raise Cancelled("stopped")

    return report


def twice(work: Callable[[Report], Any], stop: int, told: list[str]) -> Any:
    """Stop some work, do it again, and return what it gives."""
    with suppress(Cancelled):
        work(stopping(stop, told))
        raise RuntimeError("it was done before it was stopped")
    return work(stopping(-1, told))


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the channels, a quarter of the side")
    parser.add_argument("--folder", type=Path, default=Path("runs/large_unet"))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    denoiser, rows = build(asked.quick), RowSettings()
    sampler = SamplerSettings(num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    settings = CalibrationSettings(samples=1, batch_size=1, seed=SEED, sampler=sampler)
    seconds: dict[str, list[float]] = {}
    found: dict[str, Any] = {}
    told: dict[str, list[str]] = {"calibration": [], "table": []}

    def timed(name: str, work: Callable[[Report], Any], stop: int) -> None:
        start = time.perf_counter()
        found[name] = twice(work, stop, told[name])
        seconds[f"{name}_s"] = [time.perf_counter() - start]

    def everything() -> None:
        state = asked.folder / "state"
        timed(
            "calibration", lambda report: calibrate(denoiser, settings, report, checkpoint=state), STOPPED + 1
        )
        found["calls"] = len(calls)
        half = len(denoiser.quantizable_layers) // 2
        timed(
            "table",
            lambda report: measure_error_table(
                denoiser,
                found["calibration"],
                QuantSettings(activation_bits=8),
                report,
                rows=rows,
                checkpoint=state,
            ),
            half,
        )

    with counted_calls() as calls:
        extra = peak_extra_mib(everything)
    steps_again = found["calls"] - step_count(denoiser.pipeline.scheduler, STEPS)
    rounded = [text for text in told["table"] if text.startswith("rounding")]
    again = len(rounded) - len(set(rounded)) - 1  # the one at which it was stopped was not begun
    parameters = sum(layer.parameters for layer in denoiser.layers)
    figures = {
        "parameters_m": Figure(parameters / 1e6, "million weights"),
        "calibration_s": Figure(seconds["calibration_s"][0], "s"),
        "table_s": Figure(seconds["table_s"][0], "s"),
        "extra_memory_mib": Figure(extra, "MiB"),
        "model_mib": Figure(parameters * 4 / 2**20, "MiB"),
        "steps_again": Figure(steps_again, "calls", bar=0, met=steps_again == 0),
        "layers_again": Figure(again, "layers", bar=0, met=again == 0),
    }
    notes = ["random weights"] + (["quick run: a smaller network"] if asked.quick else [])
    record("large_unet", figures=figures, repeats=seconds, seed=SEED, notes=notes)
    shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()
