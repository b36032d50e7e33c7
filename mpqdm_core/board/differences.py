"""Runs beside each other: differences with intervals, the Pareto front, and two plans layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.run import KeptRun, Metric
from mpqdm_core.errors import DataError
from mpqdm_core.intervals import bootstrap_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDifference:
    """One layer in two plans."""

    layer: str
    first: float  # mean bits
    second: float
    more: int  # channels with more bits in the second
    fewer: int
    channels: int


def difference(run: KeptRun, baseline: KeptRun, name: str) -> Metric | None:
    """How far a run's metric is from the baseline's; None where one of them lacks it.

    Pictures drawn from the same seeds are compared in pairs, which gives an interval; other numbers give
    none.
    """
    mine, other = run.metrics.get(name), baseline.metrics.get(name)
    if mine is None or other is None:
        return None
    if not _paired(run, baseline, mine, other):
        return Metric(value=mine.value - other.value)
    mean = bootstrap_mean(np.asarray(mine.values) - np.asarray(other.values))
    interval = mean.interval
    return Metric(
        value=mean.value,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        n=mean.n,
    )


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: bool) -> tuple[int, ...]:
    """Places of the points that no other beats at no more cost, the cheapest first.

    Args:
        points: cost and quality of each.
        higher_is_better: of the quality; lower cost is always better.
    """
    sign = -1.0 if higher_is_better else 1.0
    front: list[int] = []
    best = np.inf
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        if sign * points[place][1] < best:
            best = sign * points[place][1]
            front.append(place)
    return tuple(front)


def plan_difference(first: BitPlan, second: BitPlan) -> tuple[LayerDifference, ...]:
    """Every layer of two plans of the same network.

    Raises:
        DataError: the plans are for different layers.
    """
    if first.layer_names != second.layer_names or not np.array_equal(first.layer_start, second.layer_start):
        raise DataError("the two plans are for different networks")
    rows = []
    for name, one, two in zip(first.layer_names, first.layer_mean_bits, second.layer_mean_bits, strict=True):
        change = second.layer_bits(name).astype(int) - first.layer_bits(name)
        rows.append(
            LayerDifference(
                layer=name,
                first=float(one),
                second=float(two),
                more=int((change > 0).sum()),
                fewer=int((change < 0).sum()),
                channels=change.size,
            )
        )
    return tuple(rows)


def _paired(run: KeptRun, baseline: KeptRun, mine: Metric, other: Metric) -> bool:
    """Whether sample i of both was drawn from the same noise."""
    if not mine.values or len(mine.values) != len(other.values):
        return False
    same = ("model", "seed", "pictures")
    alike = all(run.settings.get(name) == baseline.settings.get(name) for name in same)
    return alike and run.hashes.get("model") == baseline.hashes.get("model")
