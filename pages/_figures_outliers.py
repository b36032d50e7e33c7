"""Figures of the Outliers page that are not maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pages._layers import short

Figure = dict[str, Any]


def input_range_figure(
    layer: str | None, timesteps: np.ndarray, low: np.ndarray, high: np.ndarray, step: int
) -> Figure:
    """The range of one layer's inputs over the denoising steps.

    Args:
        layer: its name, or None when none is selected.
        timesteps: (T,) in the order visited.
        low: (T,) smallest input.
        high: (T,) largest input.
        step: the step the scrubber stands at.
    """
    x = [str(int(timestep)) for timestep in timesteps]
    band = {"type": "scatter", "mode": "lines", "x": x, "line": {"color": "var(--mpq-accent)", "width": 2}}
    traces = [
        {
            **band,
            "y": _floats(high),
            "name": "largest",
            "hovertemplate": "t = %{x}: up to %{y:.3g}<extra></extra>",
        },
        {
            **band,
            "y": _floats(low),
            "name": "smallest",
            "fill": "tonexty",
            "fillcolor": "rgba(60,140,160,.18)",
            "hovertemplate": "t = %{x}: down to %{y:.3g}<extra></extra>",
        },
    ]
    here = {
        "type": "line",
        "xref": "x",
        "x0": step,
        "x1": step,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "var(--mpq-mark)", "width": 2, "dash": "dot"},
    }
    layout = {
        "xaxis": {
            "title": {"text": "timestep, noise first"},
            "type": "category",
            "showgrid": False,
            "nticks": 8,
        },
        "yaxis": {"title": {"text": "input of the layer"}},
        "margin": {"l": 58, "t": 30},
        "shapes": [here] if layer and len(x) else [],
        "title": {"text": short(layer) if layer else "", "font": {"size": 12}, "x": 0.02, "y": 0.98},
        "annotations": []
        if layer
        else [
            {
                "text": "Select a layer on the map.",
                "xref": "paper",
                "yref": "paper",
                "x": 0.5,
                "y": 0.5,
                "showarrow": False,
            }
        ],
    }
    return {
        "data": traces if layer else [],
        "layout": layout,
        "meta": {"height": 280, "view": f"inputs-{layer}"},
    }


def _floats(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(value) for value in values]
