"""Compiled functions that round a weight, and take the gradients of it; `rounded_weights` calls them.

As in `compiled_inputs`, everything is read and written once, and values are those of torch's operators bit
for bit. Every channel has its own range and its own grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpqdm_core.compiled import compiled

# Sums may be taken in any order; a quotient stays one, as levels are decided by it.
OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "nogil": True,
    "error_model": "numpy",
}


@compiled(**OPTIONS)
def _within(level: Any, low: Any, high: Any) -> Any:
    """The level, or the end of the range that is nearer; NaN stays NaN."""
    level = low if level < low else level
    return high if level > high else level


@compiled(**OPTIONS)
def round_channels(weight: Any, scale: Any, low: Any, high: Any, mid_rise: Any, result: Any) -> None:
    """Fill in scale * clamp(level of weight / scale, low, high).

    Args:
        weight: (C, n) float32.
        scale: (C,) size of a step.
        low: (C,) lowest level, in steps.
        high: (C,) highest level.
        mid_rise: (C,) bool: levels at half steps.
        result: (C, n).
    """
    half = np.float32(0.5)
    for channel in range(weight.shape[0]):
        step, least, most = scale[channel], low[channel], high[channel]
        values, rounded = weight[channel], result[channel]
        if mid_rise[channel]:
            for i in range(weight.shape[1]):
                rounded[i] = _within(np.floor(values[i] / step) + half, least, most) * step
        else:
            for i in range(weight.shape[1]):
                rounded[i] = _within(np.rint(values[i] / step), least, most) * step


@compiled(**OPTIONS)
def differentiate_channels(
    weight: Any, scale: Any, low: Any, high: Any, mid_rise: Any, grad: Any, grad_weight: Any, sums: Any
) -> None:
    """Gradients of `round_channels`: straight through inside the range, of its edges outside.

    Args:
        weight: and the next four as `round_channels` was given them.
        scale: see there.
        low: see there.
        high: see there.
        mid_rise: see there.
        grad: (C, n) of the result.
        grad_weight: (C, n), filled in.
        sums: (2, C) float32, filled in: over each channel, `grad` times the derivative by the step's size,
            and `grad` outside the range.
    """
    half = np.float32(0.5)
    for channel in range(weight.shape[0]):
        step, least, most = scale[channel], low[channel], high[channel]
        values, pulls, passed = weight[channel], grad[channel], grad_weight[channel]
        slope, outside = np.float32(0), np.float32(0)
        if mid_rise[channel]:
            for i in range(weight.shape[1]):
                ratio, pull = values[i] / step, pulls[i]
                level = np.floor(ratio) + half
                edge = _within(level, least, most)
                inside = np.float32(edge == level)  # products with it leave no branch
                passed[i] = pull * inside
                slope += pull * (edge - inside * ratio)
                outside += pull - pull * inside
        else:
            for i in range(weight.shape[1]):
                ratio, pull = values[i] / step, pulls[i]
                level = np.rint(ratio)
                edge = _within(level, least, most)
                inside = np.float32(edge == level)
                passed[i] = pull * inside
                slope += pull * (edge - inside * ratio)
                outside += pull - pull * inside
        sums[0, channel], sums[1, channel] = slope, outside
