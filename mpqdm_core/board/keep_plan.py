"""Keeping an allocation as a run: its plan, its costs, and the error its table predicts. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence

import numpy as np

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.bit_report import BitReport
from mpqdm_core.board.costs import Layer, bit_operations
from mpqdm_core.board.run import KeptRun, Metric, Scalar, now
from mpqdm_core.quant_settings import QuantSettings

MEBIBYTE = 2**20
GIGA = 1e9


def allocated_run(
    *,
    title: str,
    plan: BitPlan,
    settings: Mapping[str, Scalar],
    hashes: Mapping[str, str],
    layers: Sequence[Layer],
    rounding: QuantSettings,
    report: BitReport | None = None,
    predicted_error: float | None = None,
) -> tuple[KeptRun, bytes]:
    """A run of a plan that nothing was drawn with, and its file. The same plan has the same id.

    Args:
        title: in tables.
        plan: bits of every channel.
        settings: by which runs are told apart.
        hashes: of model and table, as far as they are known.
        layers: all layers of the network, for its bit operations.
        rounding: how values are rounded.
        report: the account of bits, if the model's facts are known.
        predicted_error: of the table the plan was made from.
    """
    text = plan.to_json().encode()
    metrics = plan_costs(plan, layers, rounding, report)
    if predicted_error is not None and np.isfinite(predicted_error):
        metrics["predicted_error"] = Metric(value=float(predicted_error))
    run = KeptRun(
        id=run_id("allocation", dict(settings), dict(hashes), plan.content_hash),
        kind="allocation",
        title=title,
        created=now(),
        settings=settings,
        hashes={**hashes, "plan": plan.content_hash},
        metrics=metrics,
        plan=hashlib.sha256(text).hexdigest(),
        versions={"python": platform.python_version(), "numpy": np.__version__},
    )
    return run, text


def plan_costs(
    plan: BitPlan, layers: Sequence[Layer], rounding: QuantSettings, report: BitReport | None
) -> dict[str, Metric]:
    """Bits, size and operations of a plan, as far as the model's facts are known."""
    costs = {"nominal_bits": Metric(value=plan.mean_bits)}
    if report is not None:
        costs["effective_bits"] = Metric(value=report.effective_bits)
        costs["size_mib"] = Metric(value=report.bytes_estimate / MEBIBYTE)
    if layers:
        costs["gbops"] = Metric(value=bit_operations(layers, plan, rounding) / GIGA)
    return costs


def run_id(*parts: object) -> str:
    """An id that says what a run is of: keeping the same thing again gives the same one."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
