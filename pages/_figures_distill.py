"""The figure of the Distill page: the loss while it falls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Figure = dict[str, Any]
MAX_POINTS = 400  # of a curve; more would not be seen and would be sent again every second


def loss_figure(view: str, steps: Sequence[int], losses: Sequence[float], smooth: np.ndarray) -> Figure:
    """Every step's loss, thin, and its mean over the last steps, thick.

    Args:
        view: names the run; a zoom survives until there is another.
        steps: (n,) counted from 1.
        losses: (n,) of one window each.
        smooth: (n,) the same, smoothed.
    """
    kept = shown(len(steps))
    x = [int(steps[place]) for place in kept]
    raw = {
        "type": "scatter",
        "mode": "lines",
        "name": "each step",
        "x": x,
        "y": [float(losses[place]) for place in kept],
        "line": {"color": "var(--mpq-text-soft)", "width": 1},
        "opacity": 0.45,
        "hovertemplate": "step %{x}: %{y:.3g}<extra>this step</extra>",
    }
    mean = {
        "type": "scatter",
        "mode": "lines",
        "name": "mean of one pass over the timesteps",
        "x": x,
        "y": [float(smooth[place]) for place in kept],
        "line": {"color": "var(--mpq-accent)", "width": 3},
        "hovertemplate": "step %{x}: %{y:.3g}<extra>mean of a pass</extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "step"}, "showgrid": False, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "loss"}, "type": "log", "exponentformat": "power", "nticks": 6},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.14, "font": {"size": 11}},
        "margin": {"l": 62, "t": 34},
        "hovermode": "closest",
    }
    return {"data": [raw, mean], "layout": layout, "meta": {"height": 320, "view": f"loss-{view}"}}


def shown(count: int) -> list[int]:
    """Places of at most `MAX_POINTS` of `count` points, evenly, the last one always among them."""
    if count <= MAX_POINTS:
        return list(range(count))
    return [int(place) for place in np.unique(np.linspace(0, count - 1, MAX_POINTS).round())]
