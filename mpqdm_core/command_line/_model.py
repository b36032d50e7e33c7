"""Arguments that name a model and a quantized student of it, and what they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mpqdm_core.errors import SettingsError
from mpqdm_core.grids import GRIDS

if TYPE_CHECKING:
    from mpqdm_core.calibration import Calibration
    from mpqdm_core.denoiser import Denoiser
    from mpqdm_core.progress import Report
    from mpqdm_core.quant_settings import QuantSettings
    from mpqdm_core.quantization import QuantizedDenoiser

FULL = "full"


def add_model(parser: argparse.ArgumentParser) -> None:
    """The full-precision model."""
    parser.add_argument("model", help="name of a bundled model, or a diffusers folder")


def add_calibration(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The file that `calibrate` wrote."""
    parser.add_argument("--calibration", type=Path, required=required, help="file that `calibrate` wrote")


def add_rounding(parser: argparse.ArgumentParser) -> None:
    """How values are rounded."""
    parser.add_argument(
        "--activation-bits", default="8", help="1..8, or 'full' for full precision (default: %(default)s)"
    )
    parser.add_argument("--grid", choices=GRIDS, default="mid-rise", help="levels (default: %(default)s)")
    parser.add_argument(
        "--range-exponent", type=float, default=2.4, help="of the range search (default: %(default)s)"
    )
    parser.add_argument("--no-prescale", action="store_true", help="leave pre-scaling out")


def add_student(parser: argparse.ArgumentParser) -> None:
    """What the student is made from: a plan, or an adapter with everything in it."""
    add_calibration(parser, required=False)
    parser.add_argument("--plan", type=Path, help="file that `allocate` wrote")
    parser.add_argument("--adapter", type=Path, help="file that `finetune` wrote; carries plan and rounding")
    add_rounding(parser)


def rounding(asked: argparse.Namespace) -> QuantSettings:
    """The settings that the rounding arguments stand for.

    Raises:
        SettingsError: one is not possible.
    """
    from mpqdm_core.quant_settings import QuantSettings

    bits = asked.activation_bits
    if bits != FULL and not bits.isdecimal():
        raise SettingsError(
            f"--activation-bits must be a whole number from 1 to 8, or {FULL!r}, got {bits!r}"
        )
    return QuantSettings(
        activation_bits=None if bits == FULL else int(bits),
        grid=asked.grid,
        range_exponent=asked.range_exponent,
        prescale_alpha=None if asked.no_prescale else 0.5,
    )


def read_calibration(asked: argparse.Namespace) -> Calibration:
    """The calibration the arguments name.

    Raises:
        SettingsError: they name none.
        LoadError: the file cannot be read.
    """
    from mpqdm_core.calibration import Calibration

    if asked.calibration is None:
        raise SettingsError("this needs --calibration: make one with `calibrate`")
    return Calibration.load(asked.calibration)


def make_student(asked: argparse.Namespace, denoiser: Denoiser, report: Report) -> QuantizedDenoiser | None:
    """Quantize as the arguments say; None where they name no plan and no adapter.

    Raises:
        SettingsError: both are named, or the calibration is missing.
        LoadError: a file cannot be read.
        DataError: the files belong to different models.
    """
    from mpqdm_core.adapter import Adapter, apply_adapter
    from mpqdm_core.allocation import BitPlan
    from mpqdm_core.quantization import quantize

    if asked.plan is not None and asked.adapter is not None:
        raise SettingsError("give --plan or --adapter, not both: an adapter carries its plan")
    if asked.adapter is not None:
        return apply_adapter(denoiser, read_calibration(asked), Adapter.load(asked.adapter))
    if asked.plan is None:
        return None
    plan = BitPlan.load(asked.plan)
    return quantize(denoiser, read_calibration(asked), plan, rounding(asked), report)
