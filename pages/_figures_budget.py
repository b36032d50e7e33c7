"""Figures of the Bit budget page: frontier, error by layer, search over group counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pages._layers import short

Figure = dict[str, Any]
WIDE = 300.0  # largest by smallest value: above it, at least two powers of ten lie within
ALONE_BITS = 2  # where layers differ most
LINES = {
    "optimal": ("var(--mpq-accent)", "solid", "circle"),
    "gain": ("var(--mpq-good)", "dash", "diamond"),
    "kurtosis": ("var(--mpq-warm)", "dot", "square"),
    "uniform": ("var(--mpq-text-soft)", "solid", "x"),
}


def frontier_figure(
    curves: dict[str, tuple[Sequence[float], Sequence[float]]], now: tuple[float, float]
) -> Figure:
    """Predicted error against average bits.

    Args:
        curves: policy -> (mean bits, predicted error); the policy in use comes first.
        now: the allocation on the page.
    """
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [float(bits) for bits in x],
            "y": [float(error) for error in y],
            "line": {
                "color": LINES.get(name, LINES["optimal"])[0],
                "dash": LINES.get(name, LINES["optimal"])[1],
                "width": 2,
            },
            "marker": {"size": 6, "symbol": LINES.get(name, LINES["optimal"])[2]},
            "hovertemplate": f"{name}: %{{x:.2f}} bits, error %{{y:.3g}}<extra></extra>",
        }
        for name, (x, y) in curves.items()
    ]
    here = {
        "type": "scatter",
        "mode": "markers",
        "name": "now",
        "x": [now[0]],
        "y": [now[1]],
        "marker": {"size": 14, "color": "var(--mpq-mark)", "symbol": "circle-open", "line": {"width": 3}},
        "hovertemplate": "now: %{x:.2f} bits, error %{y:.3g}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "average weight bits"}, "range": [0.8, 8.2], "dtick": 1},
        "yaxis": _log_axis("predicted error", [error for _, y in curves.values() for error in y]),
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.12, "font": {"size": 11}},
        "margin": {"l": 58, "t": 34},
        "hovermode": "closest",
    }
    return {"data": [*traces, here], "layout": layout, "meta": {"height": 300, "view": "frontier"}}


def layer_error_figure(
    layers: Sequence[str], errors: np.ndarray, uniform: np.ndarray | None, alone: np.ndarray | None = None
) -> Figure:
    """Predicted error of every layer; with the uniform allocation beside it where there is one.

    Args:
        layers: names, network order.
        errors: (L,) of the allocation.
        uniform: (L,) of uniform bits at the same budget, or None.
        alone: (L,) of each layer rounded to `ALONE_BITS` while all others stay, or None; hidden until
            its name is clicked.
    """
    rows = list(range(len(layers)))
    names = [short(layer) for layer in layers]
    traces: list[Figure] = []
    if uniform is not None:
        traces.append(_dots(rows, uniform, names, "uniform", "var(--mpq-text-soft)", "line-ns-open"))
    total = float(np.sum(errors)) or 1.0
    saved = [
        f"{name}<br>left in full precision: {value / total:.1%} less error"
        for name, value in zip(names, errors, strict=True)
    ]
    traces.insert(0, _dots(rows, errors, saved, "this allocation", "var(--mpq-accent)", "circle"))
    if alone is not None:
        look = _dots(rows, alone, names, f"alone at {ALONE_BITS} bits", "var(--mpq-warm)", "diamond-open")
        traces.append({**look, "visible": "legendonly"})
    layout = {
        "xaxis": {
            "title": {"text": "layer, in the order the network runs"},
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": _log_axis("predicted error", [*errors, *([] if uniform is None else uniform)]),
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.12, "font": {"size": 11}},
        "margin": {"l": 58, "t": 34},
    }
    return {"data": traces, "layout": layout, "meta": {"height": 300, "view": "layers", "pick": list(layers)}}


def search_figure(layer: str | None, curve: Sequence[float] | None) -> Figure:
    """The paper's search: a layer's output error for every number of groups moved up and down.

    Args:
        layer: its name, or None when no layer is selected.
        curve: errors for g = 0, 1, ...; None when the policy does not search.
    """
    values = [float(value) for value in curve] if curve is not None else []
    best = int(np.nanargmin(values)) if values and np.isfinite(values).any() else -1
    colours = ["var(--mpq-mark)" if g == best else "var(--mpq-accent)" for g in range(len(values))]
    words = [("✓ " if g == best else "") + f"{value:.3g}" for g, value in enumerate(values)]
    bars = {
        "type": "bar",
        "x": list(range(len(values))),
        "y": values,
        "marker": {"color": colours},
        "text": words,
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "g = %{x}: error %{y:.4g}<extra></extra>",
    }
    finite = [value for value in values if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = (high - low) or (high or 1.0) * 0.1
    layout = {
        "xaxis": {
            "title": {"text": "groups up, as many down (g); ✓ chosen"},
            "visible": bool(values),
            "dtick": 1,
            "showgrid": False,
        },
        "yaxis": {
            "title": {"text": "error of the layer's output"},
            "visible": bool(values),
            "range": [max(0.0, low - span), high + span * 0.3],
        },
        "margin": {"l": 66, "t": 34},
        "annotations": [] if values else [_note("Select a layer on the map,<br>with the policy “kurtosis”.")],
        "title": {"text": short(layer) if layer else "", "font": {"size": 12}, "x": 0.02, "y": 0.98},
    }
    return {"data": [bars], "layout": layout, "meta": {"height": 300, "view": f"search-{layer}"}}


def _log_axis(title: str, values: Sequence[float]) -> Figure:
    """A logarithmic axis with powers of ten only where there are enough of them to read it by."""
    axis: Figure = {"title": {"text": title}, "type": "log", "exponentformat": "power"}
    known = [float(value) for value in values if np.isfinite(value) and value > 0]
    wide = bool(known) and max(known) / min(known) > WIDE
    return axis | {"dtick": 1} if wide else axis


def _dots(
    rows: list[int], values: np.ndarray, names: list[str], name: str, colour: str, symbol: str
) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rows,
        "y": [float(value) for value in values],
        "customdata": names,
        "marker": {"color": colour, "symbol": symbol, "size": 8, "line": {"width": 2, "color": colour}},
        "hovertemplate": f"%{{customdata}}<br>{name}: %{{y:.3g}}<extra></extra>",
    }


def _note(text: str) -> Figure:
    return {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
