"""Commands before any picture: models, analyze, calibrate, allocate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpqdm_core.allocation.settings import POLICIES, SCOPES, WEIGHTINGS
from mpqdm_core.command_line._console import Result, add_output, as_table
from mpqdm_core.command_line._model import (
    add_calibration,
    add_model,
    add_rounding,
    read_calibration,
    rounding,
)
from mpqdm_core.errors import SettingsError
from mpqdm_core.progress import Report

if TYPE_CHECKING:
    from mpqdm_core.error_table import ErrorTable
    from mpqdm_core.outliers import OutlierStats

STATISTICS = ("kurtosis", "crest", "range_ratio", "outlier_fraction", "energy_share")


def add_commands(commands: Any) -> None:
    """Add the commands of this group to an argparse subparsers object."""
    models = commands.add_parser("models", help="list the bundled models")
    add_output(models)
    models.set_defaults(work=list_models)

    analyze = commands.add_parser("analyze", help="outlier statistics of every layer's weights")
    add_model(analyze)
    add_calibration(analyze, required=False)
    analyze.add_argument(
        "--files", action="store_true", help="read the weights from their files, without building the model"
    )
    add_output(analyze)
    analyze.set_defaults(work=analyze_model)

    calibrate = commands.add_parser("calibrate", help="record what the layers see while the model samples")
    add_model(calibrate)
    calibrate.add_argument("--out", type=Path, required=True, help="file to write")
    calibrate.add_argument("--samples", type=int, default=32, help="pictures (default: %(default)s)")
    calibrate.add_argument("--seed", type=int, default=0)
    add_output(calibrate)
    calibrate.set_defaults(work=calibrate_model)

    allocate = commands.add_parser("allocate", help="share a bit budget among the channels")
    add_model(allocate)
    add_calibration(allocate)
    allocate.add_argument("--out", type=Path, required=True, help="bit plan to write (JSON)")
    allocate.add_argument("--bits", type=float, required=True, help="average bits per weight, 1..8")
    allocate.add_argument("--policy", choices=POLICIES, default="optimal", help="default: %(default)s")
    allocate.add_argument(
        "--weighting", choices=WEIGHTINGS, default="sensitivity", help="default: %(default)s"
    )
    allocate.add_argument("--scope", choices=SCOPES, default="model", help="default: %(default)s")
    allocate.add_argument("--table", type=Path, help="error table: read if there, else measured and written")
    add_rounding(allocate)
    add_output(allocate)
    allocate.set_defaults(work=allocate_bits)


def list_models(asked: argparse.Namespace, report: Report) -> Result:
    """What ships with the project."""
    from mpqdm_core.loading import bundled_models

    cards = bundled_models()
    rows = [(card.name, f"{card.size_mb:.1f} MB", card.title) for card in cards]
    values = [{"name": c.name, "title": c.title, "size_mb": c.size_mb} for c in cards]
    return Result(values={"models": values}, text=as_table(("name", "size", "title"), rows))


def analyze_model(asked: argparse.Namespace, report: Report) -> Result:
    """Medians and maxima over each layer's channels; with `--json`, every channel."""
    stats = _statistics(asked, report)
    rows = [
        (
            layer.name,
            len(w.kurtosis),
            float(np.median(w.kurtosis)),
            float(w.kurtosis.max()),
            float(w.crest.max()),
        )
        for layer in stats.layers
        for w in (layer.weight,)
    ]
    header = ("layer", "channels", "median kurtosis", "largest kurtosis", "largest crest")
    values = [
        {"name": layer.name, **{name: getattr(layer.weight, name).tolist() for name in STATISTICS}}
        for layer in stats.layers
    ]
    return Result(values={"layers": values}, text=as_table(header, rows))


def calibrate_model(asked: argparse.Namespace, report: Report) -> Result:
    """Write a calibration."""
    from mpqdm_core.calibration import CalibrationSettings, calibrate
    from mpqdm_core.loading import load_denoiser

    settings = CalibrationSettings(samples=asked.samples, seed=asked.seed)
    partial = asked.out.with_name(asked.out.name + ".calibrating")
    calibration = calibrate(load_denoiser(asked.model), settings, report, checkpoint=partial)
    calibration.save(asked.out)
    return Result(
        values={"file": str(asked.out), "hash": calibration.content_hash, "timesteps": calibration.timesteps},
        text=f"{asked.samples} pictures at {len(calibration.timesteps)} timesteps, in {asked.out}",
    )


def allocate_bits(asked: argparse.Namespace, report: Report) -> Result:
    """Write a bit plan."""
    from mpqdm_core.allocation import AllocationSettings, allocate

    table = _error_table(asked, report)
    allocation = allocate(
        table,
        AllocationSettings(
            policy=asked.policy, average_bits=asked.bits, weighting=asked.weighting, scope=asked.scope
        ),
    )
    plan = allocation.plan
    plan.save(asked.out)
    rows = list(zip(plan.layer_names, (float(bits) for bits in plan.layer_mean_bits), strict=True))
    ratio = allocation.predicted_error / allocation.predicted_error_uniform
    return Result(
        values={
            "file": str(asked.out),
            "hash": plan.content_hash,
            "mean_bits": plan.mean_bits,
            "predicted_error": allocation.predicted_error,
            "predicted_error_uniform": allocation.predicted_error_uniform,
            "layers": dict(rows),
            "notes": allocation.notes,
        },
        text="\n".join(
            [
                as_table(("layer", "mean bits"), rows),
                f"{plan.mean_bits:.3f} bits per weight; {ratio:.2f} times the predicted error of uniform",
                *allocation.notes,
            ]
        ),
    )


def _statistics(asked: argparse.Namespace, report: Report) -> OutlierStats:
    from mpqdm_core.loading import load_denoiser
    from mpqdm_core.outliers import outlier_stats
    from mpqdm_core.stored_weights import open_stored
    from mpqdm_core.streaming import stored_outlier_stats

    if asked.files and asked.calibration is not None:
        raise SettingsError("--files looks at weights only: leave --calibration out")
    if asked.files:
        return stored_outlier_stats(open_stored(asked.model), report)
    calibration = None if asked.calibration is None else read_calibration(asked)
    return outlier_stats(load_denoiser(asked.model), calibration, report=report)


def _error_table(asked: argparse.Namespace, report: Report) -> ErrorTable:
    """The table of a file, or a new one."""
    from mpqdm_core.effects import affordable_effects
    from mpqdm_core.error_table import ErrorTable
    from mpqdm_core.loading import load_denoiser
    from mpqdm_core.measure import measure_error_table
    from mpqdm_core.sensitivity import channel_sensitivity

    settings, calibration = rounding(asked), read_calibration(asked)
    if asked.table is not None and asked.table.exists():
        table = ErrorTable.load(asked.table)
        wanted = {**settings.as_dict(), "calibration_hash": calibration.content_hash}
        if any(table.settings.get(name) != value for name, value in wanted.items()):
            raise SettingsError(f"{asked.table} was measured with other settings: delete it, or name another")
        return table
    denoiser = load_denoiser(asked.model)
    weights = channel_sensitivity(denoiser, calibration, report=report)
    effects = affordable_effects(denoiser, calibration, settings, report)
    partial = None if asked.table is None else asked.table.with_name(f"{asked.table.name}.measuring")
    table = measure_error_table(
        denoiser, calibration, settings, report, sensitivity=weights, effects=effects, checkpoint=partial
    )
    if asked.table is not None:
        table.save(asked.table)
    return table
