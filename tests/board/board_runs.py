"""Kept runs made by hand, for tests of everything that only reads them."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.run import KeptRun, Metric, Pictures

SEEDS = (4_000_000, 4_000_001)


def png(seed: int, tile: int = 4, count: int = 2) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (tile, tile * count, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def plan(*bits: int) -> BitPlan:
    half = len(bits) // 2
    return BitPlan(
        layer_names=("down.conv", "up.conv"),
        layer_start=np.array([0, half, len(bits)]),
        weights_per_channel=np.array([9, 9]),
        bits=np.array(bits),
        settings=BitPlan.uniform(["x"], [1], [1], 4).settings,
    )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(number: int = 1, *, psnr: tuple[float, ...] = (20.0, 22.0), bits: float = 4.0, **changes):
    """A run and its files."""
    files = (png(number), png(0), plan(4, 4, 3, 5).to_json().encode())
    values = {
        "id": f"{number:032x}",
        "kind": "cell",
        "title": f"optimal W{bits:g}A8, number {number}",
        "created": f"2026-01-01T00:00:{number:02d}+00:00",
        "settings": {"model": "tiny", "policy": "optimal", "average_bits": bits, "seed": 0, "pictures": 2},
        "hashes": {"model": "aa"},
        "metrics": {
            "psnr_db": Metric(
                value=float(np.mean(psnr)), low=min(psnr), high=max(psnr), n=len(psnr), values=psnr
            ),
            "effective_bits": Metric(value=bits + 0.25),
            "size_mib": Metric(value=bits * 1.5),
        },
        "pictures": Pictures(
            tile=4, names=("cat", "house"), seeds=SEEDS, drawn=digest(files[0]), reference=digest(files[1])
        ),
        "plan": digest(files[2]),
        "seconds": {"draw": 0.5, "quantize": 0.25},
        "device": "cpu, 2 cores",
        "versions": {"torch": "2"},
    }
    return KeptRun(**{**values, **changes}), files
