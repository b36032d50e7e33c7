"""A small made-up model as shipped files, for tests of the page; no real measurement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mpqdm_core.error_table import ErrorTable

BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
PARTS = (
    "resnets.0.conv1",
    "resnets.0.conv2",
    "attentions.0.to_q",
    "attentions.0.to_out.0",
    "resnets.1.conv1",
)
CHANNELS = {"down_blocks.0": 24, "down_blocks.1": 48, "mid_block": 48, "up_blocks.0": 48, "up_blocks.1": 24}
NAME = "sprites-ldm"


def layer_names() -> tuple[str, ...]:
    return tuple(f"{block}.{part}" for block in BLOCKS for part in PARTS)


def error_table(activation_bits: int | None = 8, seed: int = 0) -> ErrorTable:
    names = layer_names()
    sizes = np.array([CHANNELS[_block(name)] for name in names])
    rng = np.random.default_rng(seed)
    start = np.concatenate([[0], np.cumsum(sizes)])
    channels = int(start[-1])
    energy = rng.lognormal(0.0, 1.0, channels)
    tail = rng.lognormal(0.0, 0.5, channels)
    floor = 0.0 if activation_bits is None else 4.0**-activation_bits
    error = energy[:, None] * (tail[:, None] * 0.4 * 4.0 ** -(np.arange(8)[None, :]) + floor)
    return ErrorTable(
        layer_names=names,
        layer_start=start,
        weights_per_channel=np.array(
            [9 * size if "conv" in name else size for name, size in zip(names, sizes, strict=True)]
        ),
        error=error,
        energy=energy,
        kurtosis=3.0 * tail**2,
        sensitivity=rng.lognormal(0.0, 1.0, channels),
        settings={"activation_bits": activation_bits, "grid": "mid-rise"},
    )


def write(folder: Path) -> Path:
    """Write assets/data/<model> as the library's precompute command does; returns the model's folder."""
    target = folder / NAME
    target.mkdir(parents=True)
    for bits in (4, 8, None):
        error_table(bits).save(target / f"error_table_{'none' if bits is None else f'a{bits}'}.npz")
    table = error_table()
    layers = [
        {
            "name": name,
            "kind": "conv" if "conv" in name else "linear",
            "out_channels": int(size),
            "in_channels": int(size),
            "kernel": [3, 3] if "conv" in name else [],
            "groups": 1,
            "weights_per_channel": int(weights),
            "parameters": int(size * weights + size),
            "macs": int(size * weights * 64),
            "exempt": None,
            "reason": "",
        }
        for name, size, weights in zip(
            table.layer_names, np.diff(table.layer_start), table.weights_per_channel, strict=True
        )
    ]
    layers.insert(0, {**layers[0], "name": "conv_in", "exempt": "8-bit", "reason": "first layer"})
    card = {
        "title": "Sprites LDM",
        "description": "A made-up model.",
        "class_names": [f"class {k}" for k in range(10)],
        "layers": layers,
    }
    (target / "model.json").write_text(json.dumps(card))
    return target


def _block(name: str) -> str:
    return next(block for block in BLOCKS if name.startswith(block))
