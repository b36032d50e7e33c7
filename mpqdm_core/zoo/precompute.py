"""Write what the page shows of a bundled model before it is loaded: `assets/data/<model>`.

    python -m mpqdm_core.zoo.precompute [--model sprites-ldm]

Calibration, outlier statistics, one error table for each number of activation bits, and a strip of pictures
for a few allocations. Each step is skipped when its file is there, so a killed run goes on; `--fresh` starts
over.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpqdm_core.allocation import AllocationSettings, allocate
from mpqdm_core.bundled import bundled_models
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.effects import layer_effects, with_effects
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.families import FAMILIES
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import measure_error_table
from mpqdm_core.outlier_map import OutlierMap
from mpqdm_core.outliers import outlier_stats
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import Samples, decode, sample
from mpqdm_core.schedules import scheduler_names
from mpqdm_core.sensitivity import channel_sensitivity

DATA_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "data"
TABLE_BITS: tuple[int | None, ...] = (2, 3, 4, 5, 6, 7, 8, None)
STRIP_SEEDS = range(10)  # one picture of each class, or of each of the first prompts
SHIPPED_ROWS = (10, 6, 3)  # per layer and timestep: the first with which the calibration is small enough
CALIBRATION_BYTES = 18_000_000
STRIP_EVERY = 2  # recorded steps between two tiles of a strip
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One allocation whose pictures ship with the page."""

    key: str
    title: str
    activation_bits: int
    allocation: AllocationSettings


def variants() -> tuple[Variant, ...]:
    """List what is drawn beside full precision: the same budgets, spent in different ways."""
    policies = (
        ("uniform", "none", "layer"),
        ("kurtosis", "none", "layer"),
        ("optimal", "sensitivity", "model"),
    )
    made = []
    for bits in (4.0, 3.0, 2.0):
        for policy, weighting, scope in policies:
            settings = AllocationSettings(policy=policy, average_bits=bits, weighting=weighting, scope=scope)
            title = f"{policy}, {bits:.0f} bits"
            made.append(
                Variant(key=f"{policy}-w{bits:.0f}a8", title=title, activation_bits=8, allocation=settings)
            )
    return tuple(made)


def precompute(denoiser: Denoiser, folder: Path) -> None:
    """Fill `folder`; files that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    calibration = _calibration(denoiser, folder)
    layers = [asdict(layer) for layer in denoiser.layers]
    card = {
        "title": denoiser.name,
        "description": next((m.description for m in bundled_models() if m.name == denoiser.name), ""),
        "class_names": list(denoiser.class_names),
        "prompted": FAMILIES[denoiser.family].prompted,
        "schedulers": list(scheduler_names(denoiser)),
        "layers": layers,
        "parameters": denoiser.parameters,
        "sampler": asdict(denoiser.sampler),
        "model_hash": denoiser.content_hash,
        "calibration_hash": calibration.content_hash,
    }
    (folder / "model.json").write_text(json.dumps(card, indent=1) + "\n")
    if not (folder / "outliers.npz").exists():
        logger.info("outlier statistics")
        stats = outlier_stats(denoiser, calibration, QuantSettings().prescale_alpha)
        names = [layer.name for layer in denoiser.quantizable_layers]
        OutlierMap.from_stats(stats, names).save(folder / "outliers.npz")
    sensitivity = None
    for bits in TABLE_BITS:
        path = folder / f"error_table_{'none' if bits is None else f'a{bits}'}.npz"
        table = ErrorTable.load(path) if path.exists() else None
        if table is not None and table.layer_effect is not None:
            continue
        logger.info("error table, activation bits %s", bits)
        settings = QuantSettings(activation_bits=bits)
        if table is None:
            sensitivity = sensitivity or channel_sensitivity(denoiser, calibration)
            table = measure_error_table(denoiser, calibration, settings, sensitivity=sensitivity)
        with_effects(table, layer_effects(denoiser, calibration, settings)).save(path)
    _strips(denoiser, calibration, folder)


def _calibration(denoiser: Denoiser, folder: Path) -> Calibration:
    path = folder / "calibration.safetensors"
    if not path.exists():
        for rows in SHIPPED_ROWS:
            logger.info("calibration, %d rows per layer and step", rows)
            calibrate(denoiser, CalibrationSettings(rows_per_step=rows)).save(path)
            if path.stat().st_size <= CALIBRATION_BYTES:
                break
    return Calibration.load(path)


def _strips(denoiser: Denoiser, calibration: Calibration, folder: Path) -> None:
    target = folder / "samples"
    if (target / "samples.json").exists():
        return
    target.mkdir(exist_ok=True)
    count = denoiser.num_classes
    labels = None if count is None else [seed % count for seed in STRIP_SEEDS]
    reference = sample(denoiser, labels=labels, seeds=STRIP_SEEDS, record="all")
    steps = [int(step) for step in reference.timesteps[::STRIP_EVERY]]
    entries = [_entry(denoiser, reference, "full-precision", "full precision", target, {})]
    for variant in variants():
        logger.info("pictures of %s", variant.key)
        table = ErrorTable.load(folder / f"error_table_a{variant.activation_bits}.npz")
        plan = allocate(table, variant.allocation).plan
        settings = QuantSettings(activation_bits=variant.activation_bits)
        quantized = quantize(denoiser, calibration, plan, settings)
        drawn = sample(quantized.denoiser, labels=labels, seeds=STRIP_SEEDS, record="all")
        figures = dict(_figures(reference, drawn))
        figures["bits per weight, effective"] = f"{quantized.bit_report.effective_bits:.2f}"
        entries.append(_entry(denoiser, drawn, variant.key, variant.title, target, figures))
    document = {
        "tile": reference.images.shape[1],
        "seeds": list(STRIP_SEEDS),
        "labels": labels,
        "timesteps": steps,
        "reference": entries[0],
        "variants": entries[1:],
    }
    (target / "samples.json").write_text(json.dumps(document, indent=1) + "\n")


def _figures(reference: Samples, drawn: Samples) -> Iterator[tuple[str, str]]:
    comparison = compare(reference, drawn)
    yield "PSNR to full precision", f"{comparison.image_psnr_db.mean.value:.1f} dB"
    if comparison.image_ssim is not None:
        yield "SSIM", f"{comparison.image_ssim.mean.value:.3f}"


def _entry(
    denoiser: Denoiser, drawn: Samples, key: str, title: str, target: Path, figures: dict[str, str]
) -> dict[str, object]:
    """Write one strip: a row for each sample, a tile for every recorded step and one for the picture."""
    columns = [decode(denoiser, latents) for latents in _recorded(drawn)] + [drawn.images]
    strip = np.concatenate([np.concatenate(list(column), axis=0) for column in columns], axis=1)
    Image.fromarray(strip).save(target / f"{key}.png", optimize=True)
    return {"key": key, "title": title, "file": f"{key}.png", "steps": len(columns), "figures": figures}


def _recorded(drawn: Samples) -> list[NDArray[np.float32]]:
    return [] if drawn.x0 is None else list(drawn.x0[::STRIP_EVERY])


def main() -> None:
    """Read the command line and precompute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sprites-ldm")
    parser.add_argument("--fresh", action="store_true", help="delete what is there first")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = DATA_FOLDER / arguments.model
    if arguments.fresh and folder.exists():
        shutil.rmtree(folder)
    precompute(load_denoiser(arguments.model), folder)


if __name__ == "__main__":
    main()
