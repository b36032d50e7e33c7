"""Figures of the Ablation page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpqdm_core.board.catalog import MetricInfo, metric_info
from mpqdm_core.board.differences import LayerDifference, pareto_front
from mpqdm_core.board.run import KeptRun, Metric
from pages._layers import short

Figure = dict[str, Any]
LOOKS = (
    ("var(--mpq-accent)", "circle"),
    ("var(--mpq-warm)", "square"),
    ("var(--mpq-mark)", "diamond"),
    ("var(--mpq-good)", "triangle-up"),
    ("var(--mpq-bits-2)", "cross"),
    ("var(--mpq-bits-6)", "x"),
)
ROW_HEIGHT, AROUND = 15, 90


def scatter_figure(runs: Sequence[KeptRun], cost: str, quality: str, baseline: str | None) -> Figure:
    """Quality against cost with intervals; a colour and a shape for each policy, a line for the front."""
    across, up = metric_info(cost), metric_info(quality)
    points = [(run.metrics[cost].value, run.metrics[quality].value) for run in runs]
    front = pareto_front(points, higher_is_better=up.higher_is_better)
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "not beaten",
            "x": [points[place][0] for place in front],
            "y": [points[place][1] for place in front],
            "line": {"color": "var(--mpq-text-soft)", "dash": "dot", "width": 1.5},
            "hoverinfo": "skip",
        }
    ]
    groups: dict[str, list[KeptRun]] = {}
    for run in runs:
        groups.setdefault(str(run.settings.get("policy") or run.kind), []).append(run)
    for place, (name, members) in enumerate(groups.items()):
        traces.append(_points(name, members, cost, quality, LOOKS[place % len(LOOKS)], baseline))
    layout = {
        "xaxis": {"title": {"text": _axis(across)}},
        "yaxis": {"title": {"text": _axis(up)}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.14, "font": {"size": 11}},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout, "meta": {"view": f"{cost} {quality}"}}


def layer_figure(rows: Sequence[LayerDifference], names: Sequence[str]) -> Figure:
    """Mean bits of every layer in two plans."""
    layers = [short(row.layer) for row in rows]
    pairs = [("first", names[0], LOOKS[0]), ("second", names[1], LOOKS[1])]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": title,
            "x": [getattr(row, side) for row in rows],
            "y": layers,
            "marker": {"color": colour, "symbol": symbol, "size": 8},
            "customdata": [[row.more, row.fewer] for row in rows],
            "hovertemplate": "%{y}: %{x:.2f} bits<br>%{customdata[0]} channels more, "
            "%{customdata[1]} fewer in the second<extra></extra>",
        }
        for side, title, (colour, symbol) in pairs
    ]
    lines: Figure = {
        "type": "scatter",
        "mode": "lines",
        "showlegend": False,
        "x": [value for row in rows for value in (row.first, row.second, None)],
        "y": [value for name in layers for value in (name, name, None)],
        "line": {"color": "var(--mpq-line)", "width": 3},
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": {"title": {"text": "mean bits of the layer"}, "side": "top"},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True, "tickfont": {"size": 10}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top"},
        "margin": {"t": 44, "b": 40},
    }
    height = AROUND + ROW_HEIGHT * len(rows)
    return {"data": [lines, *traces], "layout": layout, "meta": {"height": height, "view": "layers"}}


def _points(
    name: str, runs: Sequence[KeptRun], cost: str, quality: str, look: tuple[str, str], baseline: str | None
) -> Figure:
    colour, symbol = look
    measured = [run.metrics[quality] for run in runs]
    pinned = [run.id == baseline for run in runs]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [run.metrics[cost].value for run in runs],
        "y": [metric.value for metric in measured],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_reach(metric, metric.high) for metric in measured],
            "arrayminus": [_reach(metric, metric.low) for metric in measured],
            "thickness": 1,
            "width": 0,
            "color": colour,
        },
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": [13 if is_pinned else 9 for is_pinned in pinned],
            "line": {"width": [2 if is_pinned else 0 for is_pinned in pinned], "color": "var(--mpq-text)"},
        },
        "customdata": [run.id for run in runs],
        "text": [run.title for run in runs],
        "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
    }


def _reach(metric: Metric, end: float | None) -> float:
    return 0.0 if end is None else abs(end - metric.value)


def _axis(info: MetricInfo) -> str:
    return f"{info.title}, {info.unit}" if info.unit else info.title
