"""Rounding of a layer's input to the running timestep's levels, with gradients: by operators or compiled.

Both ways compute the same values. The compiled one serves what most training on a CPU is: contiguous float32.
`torch.compile`, which looks into operators only, is given those.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rounded_input(x: Tensor, scale: Tensor, zero_point: Tensor, multiplier: Tensor, levels: int) -> Tensor:
    """Compute s * clamp(round(x * m), -z, n - z); straight-through gradients to x, s and z.

    Args:
        x: any shape.
        scale: s, size of a step: one number, (), or one for each of B samples, (B, 1, ...).
        zero_point: z in steps, of the shape of `scale`.
        multiplier: m = prescale / s, of that many numbers or that many times the channels; broadcasts to x.
        levels: n, the highest code.

    Returns:
        the shape of x.
    """
    tensors = (x, scale, zero_point, multiplier)
    alike = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    known = (
        alike
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and (x.is_contiguous() or _is_channels_last(x, multiplier))
    )
    function: Any = _Compiled if known else _Operators
    result: Tensor = function.apply(*tensors, levels)
    return result


class _Operators(torch.autograd.Function):
    """Keeps x only and counts levels again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, multiplier: Tensor, levels: int
    ) -> Tensor:
        """Quantize and dequantize."""
        ctx.save_for_backward(x, scale, zero_point, multiplier)
        ctx.levels = levels
        steps = x.mul(multiplier).round_()
        return steps.clamp_(-zero_point, levels - zero_point).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Straight-through inside the range, edges outside."""
        x, scale, zero_point, multiplier = ctx.saved_tensors
        ratio = x * multiplier
        level = ratio.round()
        edge = level.clamp(-zero_point, ctx.levels - zero_point)
        inside = level == edge
        grad_x = grad_scale = grad_zero = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad * inside).mul_(multiplier * scale)
        if ctx.needs_input_grad[1]:
            slope = torch.addcmul(edge, ratio, inside.to(ratio.dtype), value=-1.0)
            grad_scale = torch.linalg.vecdot(_by_sample(grad, scale), _by_sample(slope, scale))
            grad_scale = grad_scale.reshape(scale.shape)
        if ctx.needs_input_grad[2]:
            outside = _by_sample(grad.masked_fill(inside, 0.0), scale).sum(dim=1)
            grad_zero = -scale * outside.reshape(zero_point.shape)
        return grad_x, grad_scale, grad_zero, None, None


class _Compiled(torch.autograd.Function):
    """The same in one pass over the values each way, in the calling thread."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, multiplier: Tensor, levels: int
    ) -> Tensor:
        """Quantize and dequantize."""
        from mpqdm_core.compiled_rounding import round_rows  # takes half a second to import

        result, rows = torch.empty_like(x), _Rows(x, scale, multiplier)
        low = -zero_point.detach().reshape(-1)
        ctx.ranges = [t.numpy() for t in (rows.factors, low, levels + low, scale.detach().reshape(-1))]
        ctx.save_for_backward(x, scale, multiplier)
        round_rows(rows.of(x), *ctx.ranges, rows.of(result))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Straight-through inside the range, edges outside."""
        from mpqdm_core.compiled_rounding import differentiate_rows

        x, scale, multiplier = ctx.saved_tensors
        rows, grad_x = _Rows(x, scale, multiplier), torch.empty_like(x)
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        values = rows.of(x)
        sums = torch.empty(2, len(values))
        differentiate_rows(values, *ctx.ranges, rows.of(grad), rows.of(grad_x), sums.numpy())
        if scale.numel() == 1:
            sums = sums.sum(dim=1)
        grad_scale = sums[0].reshape(scale.shape)
        grad_zero = -scale * sums[1].reshape(scale.shape)
        needs = ctx.needs_input_grad
        return (
            grad_x if needs[0] else None,
            grad_scale if needs[1] else None,
            grad_zero if needs[2] else None,
            None,
            None,
        )


class _Rows:
    """How a tensor's memory is cut into rows, and which factor belongs to which of them."""

    def __init__(self, x: Tensor, scale: Tensor, multiplier: Tensor) -> None:
        """Look at a tensor whose memory is in the order of its axes, or has axis 1 innermost."""
        samples = scale.numel()
        factors = multiplier.detach().reshape(samples, -1)
        channels = factors.shape[1]
        self._moved = not x.is_contiguous()
        if channels == 1:
            self._shape, self.factors = (samples, 1, -1), factors.unsqueeze(2)
        elif (multiplier.shape[-1] == channels) != self._moved:  # channels are innermost in memory
            self._shape, self.factors = (samples, -1, channels), factors.unsqueeze(1)
        else:
            self._shape, self.factors = (len(x), channels, -1), factors.unsqueeze(2)

    def of(self, values: Tensor) -> Any:
        """A tensor laid out like the first one, as rows: (B, R, n), sharing its memory."""
        values = values.detach().movedim(1, -1) if self._moved else values.detach()
        return values.view(self._shape).numpy()


def _is_channels_last(x: Tensor, multiplier: Tensor) -> bool:
    """Whether axis 1 is the innermost in memory: of an image its channels, of a sequence its places."""
    known = x.ndim == 3 or (x.ndim == 4 and multiplier.shape[-1] == 1)
    return known and x.movedim(1, -1).is_contiguous()


def _by_sample(values: Tensor, scale: Tensor) -> Tensor:
    """A row for each entry of `scale`: (B, ...) -> (B, n), or (1, n) where one scale serves all."""
    return values.reshape(scale.numel(), -1)
