"""Maps of layers x channels as plotly figures: plain dictionaries, so that nothing heavy is imported."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pages._layers import short, spans

MAX_COLUMNS = 512
SEEN_WHOLE = 0.9  # of the layers show every channel, if they are not wider than that
ROW_HEIGHT, MIN_HEIGHT, MAX_HEIGHT = 10, 300, 620
SIDE_TICKS = 3  # numbers have room on the side axis
MAP_SHARE = 0.86  # share of the width taken by the map; the rest shows one number a layer
HEAT = [
    [0.0, "#171a3a"],
    [0.25, "#4b2a74"],
    [0.5, "#a63d72"],
    [0.75, "#ec7a52"],
    [1.0, "#fbe08a"],
]

Figure = dict[str, Any]


def grid(values: np.ndarray, layer_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put channels (C,) into (layers, columns); neighbours in a wide layer share one, and the largest shows.

    The map is as wide as most layers are: one layer many times wider would leave the others a sliver.

    Returns:
        The matrix, NaN where a layer has no channel, and (layers,) how many channels share a column.
    """
    sizes = np.diff(layer_start)
    width = min(MAX_COLUMNS, int(np.quantile(sizes, SEEN_WHOLE, method="higher")))
    pools = -(-sizes // width)
    counts = -(-sizes // pools)
    rows = np.repeat(np.arange(len(sizes)), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    matrix = np.full((len(sizes), counts.max()), np.nan, dtype=np.float32)
    matrix[rows, columns] = np.fmax.reduceat(values, layer_start[rows] + columns * pools[rows])
    return matrix, pools


def pack(matrix: np.ndarray) -> dict[str, str]:
    """A float matrix in plotly's typed-array form; gaps are NaN."""
    clean = np.where(np.isfinite(matrix), matrix, np.nan).astype(np.float32)
    return {
        "dtype": "f4",
        "bdata": base64.b64encode(np.ascontiguousarray(clean).tobytes()).decode(),
        "shape": f"{clean.shape[0]}, {clean.shape[1]}",
    }


def pack_digits(matrix: np.ndarray) -> dict[str, Any]:
    """A matrix of small whole numbers as one byte a cell, 0 where there is no channel."""
    small = np.where(np.isfinite(matrix), matrix, 0).astype(np.uint8)
    return {
        "b64": base64.b64encode(small.tobytes()).decode(),
        "rows": small.shape[0],
        "columns": small.shape[1],
    }


def bits_map(layers: Sequence[str], layer_start: np.ndarray, bits: np.ndarray, weights: np.ndarray) -> Figure:
    """Bits of every channel, and beside the map the mean bits of every layer.

    Args:
        layers: names, network order.
        layer_start: (L+1,) first channel of each layer.
        bits: (C,) 1..8.
        weights: (L,) weights per channel, for the hover text.
    """
    matrix, pools = grid(bits, layer_start)
    sizes = np.diff(layer_start)
    means = np.add.reduceat(bits.astype(np.float64), layer_start[:-1]) / sizes
    cells = {
        "type": "heatmap",
        "cells": pack_digits(matrix),
        "zmin": 0.5,
        "zmax": 8.5,
        "colorscale": _steps([f"var(--mpq-bits-{bit})" for bit in range(1, 9)]),
        "showscale": False,
        "xgap": 0,
        "hoverongaps": False,
        "hovertemplate": "%{text}channel %{x}: <b>%{z} bits</b><extra></extra>",
    }
    return _figure(layers, sizes, cells, pools, means, "mean bits", [0, 8.4], "%{x:.2f} bits", digits=True)


def value_map(
    layers: Sequence[str],
    layer_start: np.ndarray,
    values: np.ndarray,
    *,
    name: str,
    logarithmic: bool = True,
    sort: bool = False,
    side_name: str = "largest",
    axis: str = "output channel",
) -> Figure:
    """One statistic of every channel; the side bar shows the largest of each layer.

    Args:
        layers: names, network order.
        layer_start: (L+1,) first channel of each layer.
        values: (C,) the statistic; NaN for channels without one.
        name: what the numbers are, for the colour bar and the hover text.
        logarithmic: colour by the logarithm; zero and below become gaps of the lowest colour.
        sort: order the channels of each layer from the largest value down; clicks are then off.
        side_name: title of the side bar.
        axis: what a column is.
    """
    sizes = np.diff(layer_start)
    if sort:
        values = np.concatenate([-np.sort(-values[a:b]) for a, b in pairwise(layer_start)])
    matrix, pools = grid(values, layer_start)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    shown, ticks = matrix, {}
    if logarithmic:
        low = max(low, high * 1e-6, 1e-12)
        shown = np.log10(np.maximum(matrix, low))
        ticks = _log_ticks(low, max(high, low * 10))
        low, high = float(np.log10(low)), float(np.log10(max(high, low)))
    cells = {
        "type": "heatmap",
        "z": pack(shown),
        "zmin": low,
        "zmax": high,
        "colorscale": HEAT,
        "hoverongaps": False,
        "showscale": True,
        "colorbar": {
            "thickness": 10,
            "len": 0.7,
            "x": 1.01,
            "xpad": 0,
            "outlinewidth": 0,
            "title": {"text": name, "side": "right", "font": {"size": 11}},
            **ticks,
        },
        "hovertemplate": f"{axis} %{{x}}<br>{name}: <b>%{{customdata:.4g}}</b><extra>%{{y}}</extra>",
        "customdata": pack(matrix),
    }
    peaks = np.array([_peak(values[a:b]) for a, b in pairwise(layer_start)])
    figure = _figure(layers, sizes, cells, pools, peaks, side_name, None, "%{x:.4g}", axis=axis)
    figure["layout"]["margin"] = {"r": 64}
    if logarithmic:
        figure["layout"]["xaxis2"] |= {"type": "log", **_side_ticks(peaks)}
        _start_bars(figure["data"], peaks)
    return figure


def _side_ticks(peaks: np.ndarray) -> dict[str, Any]:
    """Few round numbers for the narrow logarithmic axis of the side bars."""
    positive = peaks[np.isfinite(peaks) & (peaks > 0)]
    if not len(positive):
        return {}
    low, high = float(positive.min()), float(positive.max())
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        marks = [digit * 10.0**power for power in powers for digit in digits]
        shown = [mark for mark in marks if low <= mark <= high]
        if len(shown) <= SIDE_TICKS:
            break
    spread = shown[:: -(-len(shown) // SIDE_TICKS) or 1]
    return {"tickvals": spread, "ticktext": [f"{mark:g}" for mark in spread]}


def _start_bars(traces: Sequence[dict[str, Any]], peaks: np.ndarray) -> None:
    """Let bars on a logarithmic axis start below the lowest: from 0 they would reach over everything."""
    positive = peaks[np.isfinite(peaks) & (peaks > 0)]
    if len(positive):
        start = 0.8 * float(positive.min())
        for bars in (trace for trace in traces if trace["type"] == "bar"):
            bars |= {"base": start, "x": [length - start for length in bars["x"]]}


def _peak(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("nan")


def _steps(colours: Sequence[str]) -> list[list[Any]]:
    """A colour scale without transitions: one colour for each of len(colours) equal steps."""
    count = len(colours)
    return [
        [edge / count, colours[min(edge - shift, count - 1)]]
        for edge in range(count + 1)
        for shift in ((1, 0) if 0 < edge < count else (0 if edge == 0 else 1,))
    ]


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    digits = (1,) if last - first > 3 else (1, 2, 3, 5)
    marks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
    shown = [mark for mark in marks if low <= mark <= high]
    return {"tickvals": np.log10(shown).tolist(), "ticktext": [f"{mark:g}" for mark in shown]}


def _figure(
    layers: Sequence[str],
    sizes: np.ndarray,
    cells: Figure,
    pools: np.ndarray,
    side: np.ndarray,
    side_name: str,
    side_range: list[float] | None,
    side_format: str,
    *,
    axis: str = "output channel",
    digits: bool = False,
) -> Figure:
    names = [short(layer) for layer in layers]
    rows = list(range(len(layers)))
    runs = spans(layers)
    centres = [(first + last) / 2 for _, first, last in runs]
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": last + 0.5,
            "y1": last + 0.5,
            "line": {"color": "var(--mpq-page)", "width": 2},
        }
        for _, _, last in runs[:-1]
    ]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": rows,
        "x": [float(value) for value in side],
        "xaxis": "x2",
        "marker": {"color": "var(--mpq-accent)"},
        "hovertemplate": f"%{{customdata}}<br>{side_name} {side_format}<extra></extra>",
        "customdata": names,
    }
    most = int(pools.max())
    column = axis if most == 1 else "column"
    title = axis if most == 1 else f"{axis} (in wide layers, a column is the highest of up to {most})"
    height = int(np.clip(len(layers) * ROW_HEIGHT + 90, MIN_HEIGHT, MAX_HEIGHT))
    layout = {
        "xaxis": {
            "title": {"text": title, "standoff": 6},
            "domain": [0, MAP_SHARE],
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis": {
            "autorange": "reversed",
            "tickvals": centres,
            "ticktext": [run[0] for run in runs],
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
        },
        "xaxis2": {
            "domain": [MAP_SHARE + 0.02, 1],
            "anchor": "y",
            "title": {"text": side_name, "standoff": 6},
            "showgrid": False,
            "zeroline": False,
            "nticks": 3,
            "tickangle": 0,
            "fixedrange": True,
            **({"range": side_range} if side_range else {}),
        },
        "shapes": lines,
        "bargap": 0.25,
        "hovermode": "closest",
    }
    if "cells" in cells:
        cells = {**cells, "hovertemplate": f"{column} %{{x}}: <b>%{{z}} bits</b><extra>%{{y}}</extra>"}
    meta = {
        "rows": list(layers),
        "names": names,
        "sizes": [int(size) for size in sizes],
        "pools": pools.tolist(),
        "span": MAP_SHARE,
        "height": height,
        "view": "map",
        "digits": digits,
    }
    return {"data": [cells, bars], "layout": layout, "meta": meta}
