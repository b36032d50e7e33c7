"""Small quantized models and their exports, shared by the tests of packing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from tiny_quant import STEPS, small_calibration, small_denoiser, uniform_plan

from mpqdm_core.packing import export_packed
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.sampling import Samples, sample

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
GRIDS = {"affine": "affine", "mid-rise": "mid-rise", "both": {1: "mid-rise", 2: "mid-rise", 5: "mid-rise"}}


@cache
def mixed(grid: str = "both", activation_bits: int | None = 6, freeze: bool = True) -> QuantizedDenoiser:
    """Every bit-width in every layer that has eight channels, in random order."""
    plan = uniform_plan(small_denoiser(), 4)
    bits = np.random.default_rng(0).permutation(np.arange(len(plan.bits)) % 8 + 1).astype(np.int8)
    settings = QuantSettings(grid=GRIDS[grid], activation_bits=activation_bits)
    return quantize(small_denoiser(), small_calibration(), replace(plan, bits=bits), settings, freeze=freeze)


def draw(quantized: QuantizedDenoiser) -> Samples:
    return sample(quantized.denoiser, labels=[0, 1, 2], seeds=[5, 6, 7], settings=STEPS)


def exported(folder: Path, quantized: QuantizedDenoiser | None = None, **settings) -> Path:
    settings = {"scale_dtype": "float32", **settings}
    export_packed(quantized or mixed(), folder, **settings)
    return folder
