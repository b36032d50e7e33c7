"""What cells cost: bit operations of a plan, and how long a sweep will take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.sweep import Cell, Effort
from mpqdm_core.quant_settings import QuantSettings

FULL_BITS = 16  # of an operand left in full precision, as the account of bits stores it
MACS_PER_S = 4e9  # multiply-accumulates a second of a small network on one CPU core: a first guess
BACKWARD = 3.0  # a fine-tuning step against a forward pass: forward and backward
QUANTIZE_S, PREPARE_S = 0.7, 25.0  # a first guess, in seconds
SPREAD_GUESSED, SPREAD_MEASURED = 3.0, 1.5  # factor around the estimate


class Layer(Protocol):
    """What is counted of a layer; the library's LayerSpec has it, and so has the page's list of layers."""

    @property
    def name(self) -> str:
        """Its name in the network."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample."""

    @property
    def exempt(self) -> str | None:
        """Why it is outside the budget, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long cells will take."""

    seconds: float
    low: float
    high: float
    basis: str  # one sentence on what it rests on


def bit_operations(layers: Iterable[Layer], plan: BitPlan, settings: QuantSettings) -> float:
    """Bit operations (BOPs) of one forward pass of one sample: sum of macs x weight bits x input bits.

    Linear layers and convolutions only; operands in full precision count 16 bits. It is a count, not a speed.

    Args:
        layers: of the whole network, exempt ones included.
        plan: bits of the quantizable ones.
        settings: bits of the inputs and of exempt layers.
    """
    mean = dict(zip(plan.layer_names, plan.layer_mean_bits, strict=True))
    inputs = FULL_BITS if settings.activation_bits is None else settings.activation_bits
    total = 0.0
    for layer in layers:
        if layer.name in mean:
            total += layer.macs * float(mean[layer.name]) * inputs
        else:
            eight = layer.exempt == "8-bit" and settings.exempt_bits is not None
            bits = settings.exempt_bits if eight and settings.exempt_bits else FULL_BITS
            total += layer.macs * bits * bits
    return total


def estimate(
    cells: Collection[Cell], effort: Effort, *, macs: int, calls: int, history: Sequence[KeptRun] = ()
) -> Estimate:
    """How long it will take to compute `cells`, from kept cells of the same model where there are any.

    Args:
        cells: those still to be computed.
        effort: of each.
        macs: of one forward pass of one sample.
        calls: forward passes for one picture, guidance included.
        history: kept cells of this model on this machine.
    """
    known = [run for run in history if run.kind == "cell" and run.state == "done" and run.seconds]
    draw = _per_picture(known)
    picture_s = draw if draw is not None else macs * calls / MACS_PER_S
    quantize_s = _median([run.seconds[k] for run in known for k in ("quantize",) if k in run.seconds])
    pack_s = _median([run.seconds["pack"] for run in known if "pack" in run.seconds]) or 0.0
    trained = [cell for cell in cells if cell.finetuning != "none"]
    step_s = _per_step(known)
    if step_s is None:
        step_s = BACKWARD * 2 * effort.batch_size * macs * 2 / MACS_PER_S
    roundings = {(cell.grid, cell.activation_bits, cell.finetuning) for cell in cells}
    prepared = {
        (run.settings.get("grid"), run.settings.get("activation_bits"), run.settings.get("finetuning"))
        for run in known
    }
    prepare = 0.0 if not cells else (_largest_preparation(known) or PREPARE_S) * len(roundings - prepared)
    references = len({cell.seed for cell in cells})
    seconds = (
        prepare
        + len(cells) * (pack_s + (quantize_s if quantize_s is not None else QUANTIZE_S))
        + (len(cells) + references) * effort.pictures * picture_s
        + len(trained) * effort.steps * step_s
    )
    spread = SPREAD_MEASURED if draw is not None else SPREAD_GUESSED
    basis = (
        f"From {len(known)} kept cells of this model."
        if draw is not None
        else "A first guess from the size of the model; the first cells make it better."
    )
    return Estimate(seconds=seconds, low=seconds / spread, high=seconds * spread, basis=basis)


def _per_picture(runs: Sequence[KeptRun]) -> float | None:
    values = []
    for run in runs:
        pictures = run.settings.get("pictures")
        if isinstance(pictures, int) and pictures > 0 and "draw" in run.seconds:
            values.append(run.seconds["draw"] / pictures)
    return _median(values)


def _per_step(runs: Sequence[KeptRun]) -> float | None:
    values = []
    for run in runs:
        steps = run.settings.get("steps")
        if isinstance(steps, int) and steps > 0 and "finetune" in run.seconds:
            values.append(run.seconds["finetune"] / steps)
    return _median(values)


def _largest_preparation(runs: Sequence[KeptRun]) -> float | None:
    values = [run.seconds["prepare"] for run in runs if "prepare" in run.seconds]
    return max(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
