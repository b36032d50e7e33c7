"""Compiled functions that round inputs and weights of layers, and take the gradients of it.

`rounded_inputs` and `rounded_weights` call them. Operators of torch go through memory once for each of a
dozen operations; these read and write everything once. Values are those of torch's operators bit for bit, and
so are gradients of what is rounded; sums for gradients of ranges are taken in another order: float32 in the
lanes of vector units within a row, float64 over the rows of an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpqdm_core.compiled import compiled

# Sums may be taken in any order. NaN and infinity stay, and so do quotients, which decide levels.
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
def round_rows(x: Any, factors: Any, low: Any, high: Any, scale: Any, result: Any) -> None:
    """Fill in scale * clamp(round(x * factor), low, high).

    Args:
        x: (B, R, n) float32.
        factors: (b, R, 1), one a row, or (b, 1, n), one for each of a row's values; b = B, or b = 1 where all
            samples share one range.
        low: (b,) in steps.
        high: (b,) likewise.
        scale: (b,) size of a step.
        result: (B, R, n).
    """
    by_row = factors.shape[2] == 1
    for sample in range(x.shape[0]):
        own = min(sample, len(scale) - 1)
        least, most, step = low[own], high[own], scale[own]
        for row in range(x.shape[1]):
            values, rounded = x[sample, row], result[sample, row]
            if by_row:
                factor = factors[own, row, 0]
                for i in range(x.shape[2]):
                    rounded[i] = _within(np.rint(values[i] * factor), least, most) * step
            else:
                several = factors[own, 0]
                for i in range(x.shape[2]):
                    rounded[i] = _within(np.rint(values[i] * several[i]), least, most) * step


@compiled(**OPTIONS)
def differentiate_rows(
    x: Any, factors: Any, low: Any, high: Any, scale: Any, grad: Any, grad_x: Any, sums: Any
) -> None:
    """Gradients of `round_rows`: straight through inside the range, of its edges outside.

    Args:
        x: and the next four as `round_rows` was given them.
        factors: see there.
        low: see there.
        high: see there.
        scale: see there.
        grad: (B, R, n) of the result.
        grad_x: (B, R, n), filled in.
        sums: (2, B) float32, filled in: over each sample, `grad` times the derivative by the step's size, and
            `grad` outside the range.
    """
    by_row = factors.shape[2] == 1
    zero = np.float32(0)
    for sample in range(x.shape[0]):
        own = min(sample, len(scale) - 1)
        least, most, step = low[own], high[own], scale[own]
        slopes, outsides = 0.0, 0.0
        for row in range(x.shape[1]):
            values, pulls, passed = x[sample, row], grad[sample, row], grad_x[sample, row]
            slope, outside = zero, zero
            if by_row:
                factor = factors[own, row, 0]
                through = factor * step
                for i in range(x.shape[2]):
                    ratio, pull = values[i] * factor, pulls[i]
                    level = np.rint(ratio)
                    edge = _within(level, least, most)
                    inside = np.float32(edge == level)  # products with it leave no branch
                    passed[i] = pull * inside * through
                    slope += pull * (edge - inside * ratio)
                    outside += pull - pull * inside
            else:
                several = factors[own, 0]
                for i in range(x.shape[2]):
                    ratio, pull = values[i] * several[i], pulls[i]
                    level = np.rint(ratio)
                    edge = _within(level, least, most)
                    inside = np.float32(edge == level)  # products with it leave no branch
                    passed[i] = pull * inside * (several[i] * step)
                    slope += pull * (edge - inside * ratio)
                    outside += pull - pull * inside
            slopes, outsides = slopes + float(slope), outsides + float(outside)
        sums[0, sample], sums[1, sample] = slopes, outsides


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
