"""Who computes a sweep on the command line: arguments, and what they stand for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpqdm_core.errors import SettingsError

if TYPE_CHECKING:
    from mpqdm_core.board.engine import Engine, Worker
    from mpqdm_core.board.laboratory import Laboratory
    from mpqdm_core.board.sweep import Effort
    from mpqdm_core.progress import Report

ENGINES = ("serial", "accelerate", "ray")
HELP = """\
several GPUs, or processes on the CPU; each takes its share of the cells, into the same folder of runs:
  accelerate launch --multi_gpu --num_processes 4 -m mpqdm_core sweep MODEL --engine accelerate
  torchrun --nproc-per-node 4 -m mpqdm_core sweep MODEL --engine accelerate

a Ray cluster, one task a cell; without --address the one that runs on this machine, or a new one:
  python -m mpqdm_core sweep MODEL --engine ray --address ray://head:10001

The model must be at the same place on every machine. Both need: pip install -r requirements-cluster.txt.
Whatever ends a sweep, finished cells are kept: the same command computes the rest.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Staff:
    """Everything that computes a sweep."""

    laboratory: Laboratory
    engine: Engine | None = None
    worker: Worker | None = None
    speaks: bool = True  # whether this process prints what came out


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose an engine, and how to use them."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="serial",
        help="one cell after the other here, or shared out as described below (default: %(default)s)",
    )
    parser.add_argument("--address", help="of a Ray cluster")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP


def staff(asked: argparse.Namespace, effort: Effort, folder: Path, report: Report) -> Staff:
    """Load the model and gather who computes.

    Raises:
        SettingsError: the engine's package is not installed, or --address has no meaning.
        LoadError: there is no such model.
    """
    if asked.address is not None and asked.engine != "ray":
        raise SettingsError("--address is of a Ray cluster: it needs --engine ray")
    if asked.engine == "accelerate":
        return _processes(asked.model, effort, folder, report)
    if asked.engine == "ray":
        from mpqdm_core.board.cluster import import_ray

        import_ray()  # said before the model is loaded
    from mpqdm_core.board.laboratory import Laboratory
    from mpqdm_core.loading import load_denoiser

    laboratory = Laboratory(load_denoiser(asked.model), effort, scratch=folder)
    if asked.engine == "serial":
        return Staff(laboratory=laboratory)
    return _cluster(laboratory, asked.address, folder, report)


def _processes(model: str, effort: Effort, folder: Path, report: Report) -> Staff:
    from mpqdm_core.board.laboratory import Laboratory
    from mpqdm_core.board.processes import AccelerateEngine
    from mpqdm_core.loading import load_denoiser

    engine = AccelerateEngine()
    denoiser = load_denoiser(model)
    if engine.device != "cpu":
        denoiser.pipeline.to(engine.device)
    laboratory = Laboratory(
        denoiser, effort, calibration=engine.calibration(denoiser, folder, report), scratch=folder
    )
    return Staff(laboratory=laboratory, engine=engine, speaks=engine.is_first)


def _cluster(laboratory: Laboratory, address: str | None, folder: Path, report: Report) -> Staff:
    from mpqdm_core.board.cluster import RayEngine
    from mpqdm_core.board.engine import CellWork

    calibration = laboratory.calibration(report)
    work = CellWork(
        source=laboratory.denoiser.source,
        effort=laboratory.effort,
        model_hash=laboratory.denoiser.content_hash,
        calibration_hash=calibration.content_hash,
        calibration=calibration,
        scratch=folder,
    )
    return Staff(laboratory=laboratory, engine=RayEngine(address=address), worker=work)
