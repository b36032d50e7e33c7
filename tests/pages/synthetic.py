"""A small made-up model as shipped files, for tests of the page; no real measurement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from mpqdm_core.error_table import ErrorTable
from mpqdm_core.outlier_map import WEIGHT_STATISTICS, OutlierMap

BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
PARTS = (
    "resnets.0.conv1",
    "resnets.0.conv2",
    "attentions.0.to_q",
    "attentions.0.to_out.0",
    "resnets.1.conv1",
)
CHANNELS = {"down_blocks.0": 24, "down_blocks.1": 48, "mid_block": 48, "up_blocks.0": 48, "up_blocks.1": 24}
KERNEL = 9  # a 3 x 3 convolution; layers without "conv" in their name are linear
NAME = "sprites-ldm"
TABLE_BITS = (4, 8, None)
TILE, SAMPLES, STEPS = 16, 4, 3


def layer_names() -> tuple[str, ...]:
    return tuple(f"{block}.{part}" for block in BLOCKS for part in PARTS)


def sizes() -> np.ndarray:
    return np.array(
        [next(CHANNELS[block] for block in BLOCKS if name.startswith(block)) for name in layer_names()]
    )


def starts() -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes())])


def error_table(activation_bits: int | None = 8, seed: int = 0, *, sensitive: bool = True) -> ErrorTable:
    rng = np.random.default_rng(seed)
    channels = int(starts()[-1])
    energy, tail = rng.lognormal(0.0, 1.0, channels), rng.lognormal(0.0, 0.5, channels)
    floor = 0.0 if activation_bits is None else 4.0**-activation_bits
    weights = [
        KERNEL * size if "conv" in name else size for name, size in zip(layer_names(), sizes(), strict=True)
    ]
    return ErrorTable(
        layer_names=layer_names(),
        layer_start=starts(),
        weights_per_channel=np.array(weights),
        error=energy[:, None] * (tail[:, None] * 0.4 * 4.0 ** -np.arange(8)[None, :] + floor),
        energy=energy,
        kurtosis=3.0 * tail**2,
        sensitivity=rng.lognormal(0.0, 1.0, channels) if sensitive else None,
        settings={"activation_bits": activation_bits, "grid": "mid-rise", "range_exponent": 2.4},
    )


def outlier_map(seed: int = 0, steps: int = 5) -> OutlierMap:
    rng = np.random.default_rng(seed)
    channels = int(starts()[-1])
    spread = rng.lognormal(0.0, 0.7, (steps, channels)).astype(np.float32)
    values = {name: rng.lognormal(1.0, 0.5, channels).astype(np.float32) for name in WEIGHT_STATISTICS}
    return OutlierMap(
        layer_names=layer_names(),
        layer_start=starts(),
        input_start=starts(),
        weights=values,
        prescaled={name: column * 0.9 for name, column in values.items()},
        prescale=np.ones(channels, dtype=np.float32),
        timesteps=np.linspace(951, 1, steps).astype(np.int64),
        absmax=3 * spread,
        rms=spread,
        low=-3 * spread[:, : len(BLOCKS) * len(PARTS)],
        high=3 * spread[:, : len(BLOCKS) * len(PARTS)],
    )


def write(data: Path) -> Path:
    """Write data/<model> as the library's precompute command does; returns the model's folder."""
    target = data / NAME
    (target / "samples").mkdir(parents=True)
    for bits in TABLE_BITS:
        error_table(bits).save(target / f"error_table_{'none' if bits is None else f'a{bits}'}.npz")
    outlier_map().save(target / "outliers.npz")
    layers = [_layer(name, int(size)) for name, size in zip(layer_names(), sizes(), strict=True)]
    layers.insert(0, {**layers[0], "name": "conv_in", "exempt": "8-bit", "reason": "first layer"})
    card = {
        "title": NAME,
        "description": "A made-up model.",
        "class_names": [f"kind {number}" for number in range(10)],
        "parameters": sum(layer["parameters"] for layer in layers) + 1000,
        "sampler": {"num_inference_steps": 20, "guidance_scale": 3.0, "eta": 0.0},
        "layers": layers,
    }
    (target / "model.json").write_text(json.dumps(card))
    _write_samples(target / "samples")
    return target


def write_weights(models: Path, seed: int = 0) -> None:
    """Write the weights of every layer where a bundled model has them."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, size in zip(layer_names(), sizes(), strict=True):
        shape = (size, size, 3, 3) if "conv" in name else (size, size)
        tensors[f"{name}.weight"] = rng.standard_t(4, shape).astype(np.float32) * 0.05
    folder = models / NAME / "unet"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def _layer(name: str, size: int) -> dict[str, object]:
    is_conv = "conv" in name
    weights = KERNEL * size if is_conv else size
    return {
        "name": name,
        "kind": "conv" if is_conv else "linear",
        "out_channels": size,
        "in_channels": size,
        "kernel": [3, 3] if is_conv else [],
        "groups": 1,
        "weights_per_channel": weights,
        "parameters": size * weights + size,
        "macs": size * weights * 64,
        "exempt": None,
        "reason": "",
    }


def _write_samples(folder: Path) -> None:
    rng = np.random.default_rng(1)
    sheet = rng.integers(0, 255, (SAMPLES * TILE, (STEPS + 1) * TILE, 3))
    entries = []
    for key, noise in (("full-precision", 0), ("uniform-w4a8", 40), ("optimal-w4a8", 10)):
        damaged = np.clip(sheet + rng.integers(-noise, noise + 1, sheet.shape), 0, 255).astype(np.uint8)
        Image.fromarray(damaged).save(folder / f"{key}.png")
        figures = {"PSNR to full precision": f"{60 - noise} dB"} if noise else {}
        entries.append({"key": key, "title": key, "file": f"{key}.png", "figures": figures})
    document = {
        "tile": TILE,
        "seeds": list(range(SAMPLES)),
        "labels": list(range(SAMPLES)),
        "timesteps": [951, 501, 1],
        "reference": entries[0],
        "variants": entries[1:],
    }
    (folder / "samples.json").write_text(json.dumps(document))
