"""From pictures and bits to what a run keeps of them."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import platform
from collections.abc import Sequence

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mpqdm_core.board.costs import bit_operations
from mpqdm_core.board.run import Curve, Metric, Pictures
from mpqdm_core.comparison import Comparison, PairedMetric
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import DataError, LoadError
from mpqdm_core.packing import PackedFolder, measure_packed
from mpqdm_core.progress import Report, silent
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.sampling import Samples

SHOWN = 8  # pictures of a cell that are kept as pictures
MAX_VALUES = 256  # of one metric, kept picture by picture
MEBIBYTE = 2**20
GIGA = 1e9
DIGITS = 6  # of one picture's metric
logger = logging.getLogger(__name__)


def measured(found: Comparison) -> dict[str, Metric]:
    """Paired metrics with intervals; one that is infinite, as the PSNR of identical pictures, is left out."""
    pairs = {
        "psnr_db": found.image_psnr_db,
        "ssim": found.image_ssim,
        "image_mse": found.image_mse,
        "latent_snr_db": found.latent_snr_db,
    }
    return {
        name: _metric(pair)
        for name, pair in pairs.items()
        if pair is not None and math.isfinite(pair.mean.value)
    }


def counted(student: QuantizedDenoiser, denoiser: Denoiser) -> dict[str, Metric]:
    """Bits, size and operations."""
    report = student.bit_report
    operations = bit_operations(denoiser.layers, student.plan, student.settings)
    return {
        "nominal_bits": Metric(value=report.nominal_bits),
        "effective_bits": Metric(value=report.effective_bits),
        "size_mib": Metric(value=report.bytes_estimate / MEBIBYTE),
        "gbops": Metric(value=operations / GIGA),
    }


def weighed(student: QuantizedDenoiser, report: Report = silent) -> dict[str, Metric]:
    """Bits and bytes of the packed file, which is written and deleted again; none if it cannot be packed.

    Args:
        student: to be packed, with scales in half precision.
        report: told every layer; may raise `Cancelled`.
    """
    try:
        packed = measure_packed(student, report=report)
    except (DataError, LoadError, OSError) as error:
        logger.info("a cell was not packed: %s", error)
        return {}
    return on_disk(packed)


def on_disk(packed: PackedFolder) -> dict[str, Metric]:
    """Bits and bytes of a packed file."""
    return {
        "on_disk_bits": Metric(value=packed.bits_on_disk),
        "file_bytes": Metric(value=float(packed.file_bytes)),
    }


def by_step(found: Comparison) -> dict[str, Curve]:
    """Signal to error of the latent by timestep; nothing where ways were not recorded."""
    way = found.trajectory
    if way is None:
        return {}
    y = way.latent_snr_db.mean(axis=1)
    kept = np.isfinite(y)
    return {
        "latent_snr_db": Curve(
            x=tuple(float(step) for step in way.timesteps[kept]), y=tuple(round(float(v), 4) for v in y[kept])
        )
    }


def sheet(pictures: NDArray[np.uint8]) -> bytes:
    """PNG of pictures (N, H, W, 3) in one row."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def describe_pictures(drawn: Samples, files: Sequence[bytes], class_names: Sequence[str]) -> Pictures:
    """What the sheets in `files`, drawn and reference, show."""
    seeds = tuple(int(seed) for seed in drawn.seeds[:SHOWN])
    named = drawn.labels is not None and bool(class_names)
    names = tuple(
        class_names[int(drawn.labels[place])] if named and drawn.labels is not None else f"seed {seed}"
        for place, seed in enumerate(seeds)
    )
    return Pictures(
        tile=int(drawn.images.shape[1]),
        names=names,
        seeds=seeds,
        drawn=blob_hash(files[0]),
        reference=blob_hash(files[1]),
    )


def blob_hash(data: bytes) -> str:
    """Name under which the run store keeps `data`."""
    return hashlib.sha256(data).hexdigest()


def device_of(denoiser: Denoiser) -> str:
    """What the network runs on."""
    device = next(denoiser.network.parameters()).device
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type}, {os.cpu_count()} cores, {platform.machine()}"


def versions() -> dict[str, str]:
    """Versions that can change a number."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "numpy": np.__version__,
    }


def _metric(pair: PairedMetric) -> Metric:
    mean, interval = pair.mean, pair.mean.interval
    values = [float(value) for value in pair.values[:MAX_VALUES]]
    whole = len(pair.values) <= MAX_VALUES and all(map(math.isfinite, values))
    return Metric(
        value=mean.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        n=mean.n,
        values=tuple(float(f"{value:.{DIGITS}g}") for value in values) if whole else (),
    )
