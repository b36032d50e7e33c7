"""Commands that make a student: finetune, export, inspect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqdm_core.command_line._console import Result, add_output, as_table
from mpqdm_core.command_line._model import (
    add_calibration,
    add_model,
    add_rounding,
    add_student,
    make_student,
    read_calibration,
    rounding,
)
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.progress import Report

if TYPE_CHECKING:
    from mpqdm_core.denoiser import Denoiser
    from mpqdm_core.packing import PackedFolder
    from mpqdm_core.teacher import TeacherRecord

STOPPED = 130
MIB = 2**20


def add_commands(commands: Any) -> None:
    """Add the commands of this group to an argparse subparsers object."""
    finetune = commands.add_parser(
        "finetune", help="train a student; goes on where an earlier call was stopped or killed"
    )
    add_model(finetune)
    add_calibration(finetune)
    finetune.add_argument("--plan", type=Path, required=True, help="file that `allocate` wrote")
    finetune.add_argument("--out", type=Path, required=True, help="adapter to write (safetensors)")
    finetune.add_argument("--recipe", default="ours", help="whose losses and rates (default: %(default)s)")
    finetune.add_argument("--steps", type=int, default=300, help="optimiser steps (default: %(default)s)")
    finetune.add_argument("--batch-size", type=int, default=8, help="pictures a step (default: %(default)s)")
    finetune.add_argument("--pictures", type=int, default=64, help="of the teacher (default: %(default)s)")
    finetune.add_argument("--seed", type=int, default=0)
    finetune.add_argument(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile; for long runs on a GPU",
    )
    add_rounding(finetune)
    add_output(finetune)
    finetune.set_defaults(work=finetune_student)

    export = commands.add_parser("export", help="write a quantized model as a packed diffusers folder")
    add_model(export)
    add_student(export)
    export.add_argument("--out", type=Path, required=True, help="folder to write")
    export.add_argument(
        "--scale-dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s"
    )
    add_output(export)
    export.set_defaults(work=export_model)

    inspect = commands.add_parser("inspect", help="account for the bytes of a packed folder")
    inspect.add_argument("folder", type=Path)
    add_output(inspect)
    inspect.set_defaults(work=inspect_folder)


def finetune_student(asked: argparse.Namespace, report: Report) -> Result:
    """Train and write the adapter; a stopped run leaves a partial one and its checkpoint."""
    from mpqdm_core.allocation import BitPlan
    from mpqdm_core.finetune_run import finetune
    from mpqdm_core.loading import load_denoiser
    from mpqdm_core.recipes import get_recipe

    recipe = get_recipe(asked.recipe)
    settings = recipe.finetune_settings(asked.steps, asked.seed, batch_size=asked.batch_size)
    if settings is None:
        raise SettingsError(f"the recipe {recipe.name!r} has no training: choose another")
    denoiser, calibration = load_denoiser(asked.model), read_calibration(asked)
    result = finetune(
        denoiser,
        calibration,
        BitPlan.load(asked.plan),
        _teacher(asked, denoiser, report),
        settings,
        rounding(asked),
        checkpoint=asked.out.with_name(asked.out.name + ".state"),
        report=report,
        compile_backend="inductor" if asked.compile else None,
    )
    adapter = result.adapter
    adapter.save(asked.out)
    if result.finished:
        _record_file(asked).unlink(missing_ok=True)
    where = "finished" if result.finished else f"stopped after {adapter.steps} of {asked.steps} steps"
    rows = [(name, value) for name, value in sorted(adapter.losses.items())]
    return Result(
        values={
            "file": str(asked.out),
            "hash": adapter.content_hash,
            "finished": result.finished,
            "steps": adapter.steps,
            "losses": dict(adapter.losses),
        },
        text="\n".join([as_table(("held-out loss", "value"), rows), f"{where}: {asked.out}"]),
        exit_code=0 if result.finished else STOPPED,
    )


def export_model(asked: argparse.Namespace, report: Report) -> Result:
    """Write the folder and account for its bytes."""
    from mpqdm_core.loading import load_denoiser
    from mpqdm_core.packing import export_packed

    student = make_student(asked, load_denoiser(asked.model), report)
    if student is None:
        raise SettingsError("there is nothing to pack: give --plan or --adapter")
    return _account(export_packed(student, asked.out, scale_dtype=asked.scale_dtype, report=report))


def inspect_folder(asked: argparse.Namespace, report: Report) -> Result:
    """Account for the bytes of a folder without loading it."""
    from mpqdm_core.packing import inspect_packed

    return _account(inspect_packed(asked.folder))


def _account(packed: PackedFolder) -> Result:
    rows = [(item.name, item.bytes) for item in packed.items]
    plan = packed.manifest.plan
    return Result(
        values={
            "folder": str(packed.folder),
            "hash": packed.content_hash,
            "items": dict(rows),
            "file_bytes": packed.file_bytes,
            "mean_bits": plan.mean_bits,
            "bits_on_disk": packed.bits_per_weight,
        },
        text="\n".join(
            [
                as_table(("part", "bytes"), rows),
                f"{packed.file_bytes / MIB:.2f} MiB; {plan.mean_bits:.3f} bits per weight, "
                f"{packed.bits_per_weight:.3f} on the disk with their tables",
            ]
        ),
    )


def _record_file(asked: argparse.Namespace) -> Path:
    name: Path = asked.out.with_name(asked.out.name + ".teacher")
    return name


def _teacher(asked: argparse.Namespace, denoiser: Denoiser, report: Report) -> TeacherRecord:
    """What the teacher did; kept beside the checkpoint for a run that goes on."""
    from mpqdm_core.teacher import TeacherRecord, record_teacher

    path = _record_file(asked)
    if path.exists():
        record = TeacherRecord.load(path)
        if record.denoiser_hash != denoiser.content_hash or record.pictures != asked.pictures:
            raise DataError(f"{path.name} was recorded with other settings: delete it to record again")
        return record
    record = record_teacher(denoiser, pictures=asked.pictures, seed=asked.seed, report=report)
    record.save(path)
    return record
