"""Rounding of a weight in training, compiled: all channels in one pass each way, whatever their grids.

`weights.round_weight` computes the same values with torch's operators, and serves what this does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def trains_compiled(weight: Tensor, scale: Tensor, zero_point: Tensor) -> bool:
    """Whether `rounded_weight` serves here: gradients are asked for, of contiguous float32 on a CPU."""
    tensors = (weight, scale, zero_point)
    asked = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    alike = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    here = not torch.compiler.is_compiling()  # which looks into operators only
    return here and asked and alike and weight.is_contiguous() and weight.numel() > 0


def rounded_weight(
    weight: Tensor, scale: Tensor, zero_point: Tensor, bits: Tensor, mid_rise: Tensor
) -> Tensor:
    """Fake-quantize a weight that `trains_compiled`; straight-through gradients to it, scale and zero-point.

    Args:
        weight: (C, ...).
        scale: (C,) size of a step.
        zero_point: (C,) in steps; without a gradient on mid-rise, where it is fixed by the bits.
        bits: (C,) integers.
        mid_rise: (C,) bool: levels at half steps.

    Returns:
        the shape of `weight`.
    """
    low = -zero_point.detach()
    high = torch.ldexp(torch.ones_like(low), bits) - 1 + low
    result: Tensor = _Compiled.apply(weight, scale, zero_point, low, high, mid_rise)  # type: ignore[no-untyped-call]
    return result


class _Compiled(torch.autograd.Function):
    """Keeps the weight and its ranges; the backward pass counts levels again."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        low: Tensor,
        high: Tensor,
        mid_rise: Tensor,
    ) -> Tensor:
        """Quantize and dequantize."""
        from mpqdm_core.compiled_rounding import round_channels  # takes half a second to import

        ctx.save_for_backward(weight, scale, low, high, mid_rise)
        result = torch.empty_like(weight)
        channels = (weight.flatten(1), scale, low, high, mid_rise, result.view(len(weight), -1))
        round_channels(*(t.detach().numpy() for t in channels))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, edges outside."""
        from mpqdm_core.compiled_rounding import differentiate_channels

        weight, scale, low, high, mid_rise = ctx.saved_tensors
        grad_weight, sums = torch.empty_like(weight), torch.empty(2, len(weight))
        pulls = grad.contiguous().flatten(1)
        channels = (
            weight.flatten(1),
            scale,
            low,
            high,
            mid_rise,
            pulls,
            grad_weight.view(len(weight), -1),
            sums,
        )
        differentiate_channels(*(t.detach().numpy() for t in channels))
        grad_zero_point = torch.where(mid_rise, 0.0, -scale * sums[1])
        needs = ctx.needs_input_grad
        return (
            grad_weight if needs[0] else None,
            sums[0] if needs[1] else None,
            grad_zero_point if needs[2] else None,
            None,
            None,
            None,
        )
