"""What a cell means to the library: rounding, budget and training, and all of that as flat settings."""

from __future__ import annotations

from dataclasses import asdict, replace

from mpqdm_core.allocation import AllocationSettings
from mpqdm_core.board.run import Scalar
from mpqdm_core.board.sweep import Cell, Effort
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.recipes import get_recipe


def rounding_of(cell: Cell) -> QuantSettings:
    """How a cell rounds: its recipe's way with its own grid."""
    base = QuantSettings() if cell.finetuning == "none" else get_recipe(cell.finetuning).quantization
    return QuantSettings.from_dict(
        {**base.as_dict(), "grid": cell.grid, "activation_bits": cell.activation_bits}
    )


def allocation_of(cell: Cell) -> AllocationSettings:
    """How a cell gives out bits."""
    return AllocationSettings(
        policy=cell.policy,
        average_bits=cell.average_bits,
        weighting=cell.weighting,
        scope=cell.scope,
        seed=cell.seed,
    )


def finetuning_of(cell: Cell, effort: Effort) -> FinetuneSettings | None:
    """How a cell is trained; None: not at all."""
    if cell.finetuning == "none":
        return None
    settings = get_recipe(cell.finetuning).finetune_settings(
        effort.steps, cell.seed, batch_size=effort.batch_size
    )
    if settings is None or not cell.relation:
        return settings and replace(settings, relation_weight=0.0, detach_features=False)
    return replace(settings, relation_weight=settings.relation_weight or 1.0)


def settings_of(
    cell: Cell, effort: Effort, denoiser: Denoiser, calibration: Calibration, table: ErrorTable
) -> dict[str, Scalar]:
    """Everything that the cell was made with, flat: what a script needs to make it again."""
    made = calibration.settings
    flat = asked_of(cell, effort, denoiser.source)
    flat |= {f"sampler.{name}": value for name, value in asdict(denoiser.sampler).items()}
    flat |= {
        f"calibration.{name}": getattr(made, name)
        for name in ("samples", "seed", "batch_size", "rows_per_step")
    }
    flat |= {
        f"table.{name}": table.settings[name]
        for name in ("images_per_step", "positions", "row_seed")
        if name in table.settings
    }
    if cell.weighting == "sensitivity":
        flat["layer_effects"] = table.layer_effect is not None
    return flat


def asked_of(cell: Cell, effort: Effort, source: str) -> dict[str, Scalar]:
    """What was asked for: the cell and its effort."""
    flat: dict[str, Scalar] = {"model": source, **asdict(cell), "pictures": effort.pictures}
    if cell.finetuning != "none":
        flat |= {name: value for name, value in asdict(effort).items() if name != "pictures"}
    return flat
