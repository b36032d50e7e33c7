"""Figures of the Compare page."""

from __future__ import annotations

from typing import Any

import numpy as np

Figure = dict[str, Any]
STYLES = (
    ("var(--mpq-accent)", "solid", "circle"),
    ("var(--mpq-warm)", "dot", "square"),
    ("var(--mpq-good)", "dash", "diamond"),
)


def step_figure(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How far each model's latent has drifted from full precision, step by step.

    Args:
        curves: title -> (timesteps (T,), signal to error in dB (T,)).
    """
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": title,
            "x": [str(int(step)) for step in steps],
            "y": [float(value) for value in values],
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {"size": 6, "symbol": symbol},
            "hovertemplate": "t = %{x}: %{y:.1f} dB<extra>" + title + "</extra>",
        }
        for (title, (steps, values)), (colour, dash, symbol) in zip(curves.items(), STYLES, strict=False)
    ]
    layout = {
        "xaxis": {
            "title": {"text": "timestep, noise first"},
            "type": "category",
            "nticks": 8,
            "showgrid": False,
        },
        "yaxis": {"title": {"text": "signal to error, dB"}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.14, "font": {"size": 11}},
        "margin": {"l": 56, "t": 34},
    }
    count = max((len(steps) for steps, _ in curves.values()), default=0)
    return {"data": traces, "layout": layout, "meta": {"height": 300, "view": "steps", "steps": count}}
