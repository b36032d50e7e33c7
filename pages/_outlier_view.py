"""From the widgets of the Outliers page to a map, a sentence and a list of offenders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.outlier_map import excess_kurtosis, layers_holding, worst_channels
from pages._budget_tables import UnknownModelError
from pages._figures_map import Figure, value_map
from pages._layers import short
from pages._session import workspace

STATISTICS = {
    "kurtosis": "kurtosis (a Gaussian has 3)",
    "crest": "largest weight / RMS",
    "range_ratio": "range / robust range",
    "outlier_fraction": "share beyond 6 sigma",
    "energy_share": "share of the layer's energy",
}
INPUT_STATISTICS = {
    "channel_ratio": "channel's largest / median channel's",
    "absmax": "largest input",
    "crest": "largest input / RMS",
    "rms": "RMS of the input",
}
OFFENDERS = 30
SHARE = 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierView:
    """One statistic of every channel, with the names it needs."""

    layers: tuple[str, ...]
    start: np.ndarray  # (L+1,)
    values: np.ndarray  # (C,)
    name: str
    side: str
    statistic: str
    step: int
    timestep: int | None


def look(session: str | None, side: str, statistic: str, input_statistic: str, step: Any) -> OutlierView:
    """The statistic the widgets ask for.

    Raises:
        DataError: it has not been measured for this model.
    """
    work = workspace(session)
    stats = work.outlier_stats()
    if side == "activations":
        if stats is None or not len(stats.timesteps):
            raise DataError(
                f"the inputs of {work.title} have not been measured: press Measure on the Model page"
            )
        at = min(max(int(step or 0), 0), len(stats.timesteps) - 1)
        return OutlierView(
            layers=stats.layer_names,
            start=stats.input_start,
            values=stats.input_statistic(input_statistic, at),
            name=INPUT_STATISTICS[input_statistic],
            side=side,
            statistic=input_statistic,
            step=at,
            timestep=int(stats.timesteps[at]),
        )
    if stats is None:
        return _from_table(work, statistic)
    values = stats.weights if side == "weights" else stats.prescaled
    if statistic not in values:
        raise DataError(f"{work.title} was measured without pre-scaling: look at the weights as they are")
    return OutlierView(
        layers=stats.layer_names,
        start=stats.layer_start,
        values=values[statistic],
        name=STATISTICS[statistic],
        side=side,
        statistic=statistic,
        step=0,
        timestep=None,
    )


def figure(seen: OutlierView, logarithmic: bool, sort: bool) -> Figure:
    """The map."""
    is_input = seen.side == "activations"
    made = value_map(
        seen.layers,
        seen.start,
        seen.values,
        name=seen.name,
        logarithmic=logarithmic,
        sort=sort,
        axis="input channel" if is_input else "output channel",
    )
    made["meta"] |= {"layer_only": is_input or sort, "view": f"{seen.side}-{sort}"}
    return made


def sentence(seen: OutlierView) -> str:
    """What the map says, in words."""
    finite = seen.values[np.isfinite(seen.values)]
    if not len(finite):
        return "No channel has this statistic."
    top = int(worst_channels(seen.values, 1)[0])
    layer, channel = place(seen, top)
    peak = f"The highest is {seen.values[top]:.3g}, in {short(layer)}, channel {channel}"
    middle = f"the median channel has {np.median(finite):.3g}"
    missing = len(seen.values) - len(finite)
    lost = f" {missing} channels have no value: constant, or not a number." if missing else ""
    if seen.statistic != "kurtosis":
        when = f" At timestep {seen.timestep}." if seen.timestep is not None else ""
        return f"{peak}; {middle}.{when}{lost}"
    rows = layers_holding(excess_kurtosis(seen.values), seen.start, SHARE)
    if not rows:
        return f"No channel is above a Gaussian's kurtosis of 3; {middle}.{lost}"
    names = ", ".join(short(seen.layers[row]) for row in rows[:3]) + (" and others" if len(rows) > 3 else "")
    held = f"{len(rows)} of {len(seen.layers)} layers hold {SHARE:.0%} of the excess kurtosis ({names})."
    return f"{held} {peak}; {middle}.{lost}"


def offenders(seen: OutlierView, threshold: Any) -> list[list[Any]]:
    """The worst channels above a threshold: layer, channel, value.

    Raises:
        SettingsError: the threshold is not a number.
    """
    above = -np.inf
    if threshold is not None and threshold != "":
        try:
            above = float(threshold)
        except (TypeError, ValueError):
            raise SettingsError(f"the threshold must be a number, got {threshold!r}") from None
        if math.isnan(above):
            raise SettingsError("the threshold must be a number, got NaN")
    found = worst_channels(seen.values, OFFENDERS, above)
    return [[*place(seen, int(index)), float(f"{seen.values[index]:.5g}")] for index in found]


def place(seen: OutlierView, index: int) -> tuple[str, int]:
    """Layer and channel of a position in the row of all channels."""
    row = int(np.searchsorted(seen.start, index, side="right")) - 1
    return seen.layers[row], index - int(seen.start[row])


def _from_table(work: Any, statistic: str) -> OutlierView:
    """Kurtosis is in every error table, so that something can be shown before outliers were measured."""
    table = work.table(next(iter(work.measured_bits()), None))
    if table is None:
        raise UnknownModelError(work.title)
    if statistic != "kurtosis":
        raise DataError(f"only the kurtosis of {work.title} is known so far: press Measure on the Model page")
    return OutlierView(
        layers=table.layer_names,
        start=table.layer_start,
        values=table.kurtosis,
        name=STATISTICS["kurtosis"],
        side="prescaled",
        statistic="kurtosis",
        step=0,
        timestep=None,
    )
