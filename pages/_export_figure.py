"""The figure of the Export page: three ways to count the bits of a weight, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figure = dict[str, Any]
COLOURS = {
    "quantized weights": "var(--mpq-accent)",
    "weight scales": "var(--mpq-warm)",
    "weight zero-points": "var(--mpq-mark)",
    "bits of each channel": "var(--mpq-good)",
    "pre-scale factors": "var(--mpq-bits-5)",
    "activation ranges by timestep": "var(--mpq-bits-2)",
    "header and manifest": "var(--mpq-text-soft)",
}
Bar = tuple[str, Mapping[str, float]]


def bits_figure(bars: Sequence[Bar]) -> Figure:
    """Stacked bars of bits per quantized weight.

    Args:
        bars: name and bits by part, from top to bottom.
    """
    names = [name for name, _ in bars]
    totals = [sum(parts.values()) for _, parts in bars]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": names,
            "x": [float(parts.get(part, 0.0)) for _, parts in bars],
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}<br>{part}: %{{x:.3f}} bits a weight<extra></extra>",
        }
        for part, colour in COLOURS.items()
        if any(parts.get(part) for _, parts in bars)
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {
            "title": {"text": "bits a weight of quantized layers"},
            "range": [0, 1.16 * max(totals, default=1.0)],
        },
        "yaxis": {"autorange": "reversed", "showgrid": False, "automargin": True},
        "showlegend": False,  # keys in HTML beside it find room on a phone too
        "margin": {"l": 70, "t": 12},
        "bargap": 0.35,
        "annotations": [
            {
                "x": total,
                "y": name,
                "text": f"{total:.3f}",
                "xanchor": "left",
                "showarrow": False,
                "xshift": 4,
                "font": {"color": "var(--mpq-text)"},
            }
            for name, total in zip(names, totals, strict=True)
        ],
    }
    return {"data": traces, "layout": layout, "meta": {"height": 240, "view": "export-bits"}}
