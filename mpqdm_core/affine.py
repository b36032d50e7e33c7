"""Level grids: from real numbers to integer codes and back, with per-channel bit-widths.

Two grids, each with `2**bits` levels and codes `0 .. n`, `n = 2**bits - 1`:

- `affine`: a level sits exactly at 0. `q = clamp(round(x / s) + z, 0, n)`, `x_hat = (q - z) * s`,
  z an integer in [0, n].
- `mid-rise`: levels at half steps, symmetric about 0; 1 bit is sign coding, +-s/2.
  `q = clamp(floor(x / s) + 2**(bits-1), 0, n)`, `x_hat = (q - z) * s` with the fixed `z = 2**(bits-1) - 1/2`.

Everything is one vectorised pass whatever mixture of bit-widths the channels have. Arithmetic runs in the
dtype of `x` (at least float32); halves tie to even on `affine` and go up on `mid-rise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.grids import GRIDS as GRIDS
from mpqdm_core.grids import MAX_BITS as MAX_BITS
from mpqdm_core.grids import MIN_BITS as MIN_BITS
from mpqdm_core.grids import Grid as Grid
from mpqdm_core.grids import check_grid as check_grid

SMALLEST_SCALE = 1e-12  # step of a channel without any range, so that x / scale stays finite


@dataclass(frozen=True, kw_only=True, eq=False)
class QParams:
    """What maps a tensor to codes: one entry for the whole tensor, or one for each index of its first axis.

    Attributes:
        scale: distance between neighbouring levels, in units of x; () or (C,) or broadcastable to x.
        zero_point: code at which the value 0 lies, same shape; an integer on `affine`, `2**(bits-1) - 1/2` on
            `mid-rise`.
        bits: int64, same shape, each in 1..8.
        grid: where the levels sit.
    """

    scale: Tensor
    zero_point: Tensor
    bits: Tensor
    grid: Grid = "affine"

    def __post_init__(self) -> None:
        """Check the name of the grid and that the three shapes agree."""
        check_grid(self.grid)
        shapes = {tuple(self.scale.shape), tuple(self.zero_point.shape), tuple(self.bits.shape)}
        if len(shapes) != 1:
            raise ShapeError(f"scale, zero_point and bits must have one shape, got {sorted(shapes)}")

    def to(self, *args: Any, **kwargs: Any) -> QParams:
        """Move scale and zero_point as `Tensor.to` does; bits follow to the same device and stay integers."""
        scale = self.scale.to(*args, **kwargs)
        zero_point = self.zero_point.to(*args, **kwargs)
        return QParams(scale=scale, zero_point=zero_point, bits=self.bits.to(scale.device), grid=self.grid)


def quantize(x: Tensor, q: QParams) -> Tensor:
    """Integer codes of `x`.

    Args:
        x: any shape, floating point.
        q: () for one grid, (C,) for one per index of the first axis of x, or broadcastable with as many axes.

    Returns:
        uint8 codes in [0, 2**bits - 1], the shape of x. NaN gets the code of the lowest level.

    Raises:
        ShapeError: q does not fit x.
    """
    x = at_least_float32(x)
    scale, zero_point, top = _aligned(x, q)
    if q.grid == "affine":
        codes = torch.round(x / scale) + torch.round(zero_point)
    else:
        codes = torch.floor(x / scale) + (zero_point + 0.5)
    return codes.nan_to_num(nan=0.0).clamp(min=0).minimum(top).to(torch.uint8)


def dequantize(codes: Tensor, q: QParams) -> Tensor:
    """Values of integer codes: `(codes - zero_point) * scale`.

    Args:
        codes: integers as `quantize` returns them.
        q: the same parameters.

    Returns:
        the dtype of q.scale, the shape of codes.

    Raises:
        ShapeError: q does not fit codes.
    """
    values = codes.to(q.scale.dtype)
    scale, zero_point, _ = _aligned(values, q)
    if q.grid == "affine":
        zero_point = torch.round(zero_point)
    return (values - zero_point) * scale


def fake_quantize(x: Tensor, q: QParams) -> Tensor:
    """`dequantize(quantize(x))` in floating point, with straight-through gradients.

    Inside the range: d/dx = 1, d/ds = round(x/s) - x/s, d/dz = 0. Outside: d/dx = 0, d/ds = q_edge - z,
    d/dz = -s. On `mid-rise` the level floor(x/s) + 1/2 stands for round(x/s), and zero_point, fixed by the
    bits, gets no gradient. A real (trained) zero_point of `affine` is used as it is; `quantize` and
    `dequantize` round it.

    Args:
        x: any shape, floating point.
        q: () for one grid, (C,) for one per index of the first axis of x, or broadcastable with as many axes.

    Returns:
        the shape and dtype of x; within scale / 2 of x inside the range of the levels.

    Raises:
        ShapeError: q does not fit x.
    Source:
        Straight-through rounding with clipping that passes gradients to s and z, as BRECQ and its descendants
        do; no LSQ gradient scaling.
    """
    scale, zero_point, top = _aligned(x, q)
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad or zero_point.requires_grad):
        result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
            x, scale, zero_point, top, q.grid == "mid-rise"
        )
        return result
    steps = _steps(at_least_float32(x), scale, zero_point, top, mid_rise=q.grid == "mid-rise")
    return steps.mul_(scale).to(x.dtype)


def choose_qparams_minmax(x_min: Tensor, x_max: Tensor, bits: int | Tensor, grid: Grid = "affine") -> QParams:
    """Parameters whose levels cover [x_min, x_max]; the range is widened to contain 0.

    Args:
        x_min: () or (C,), smallest values.
        x_max: the same shape, largest values.
        bits: 1..8, one number or one per entry.
        grid: `affine`: s = (max - min) / n, z = round(-min / s).
            `mid-rise`: s = 2 * max(|min|, |max|) / 2**bits.

    Returns:
        QParams of that shape, in the dtype of x_min (at least float32). A range of 0 gets scale 1e-12, NaN or
        infinite ends get scale NaN, so that such a channel stays visibly broken and the others intact.

    Raises:
        SettingsError: bits outside 1..8, an unknown grid, or x_min above x_max.
        ShapeError: shapes differ.
    """
    check_grid(grid)
    if x_min.shape != x_max.shape:
        raise ShapeError(
            f"x_min is {tuple(x_min.shape)} but x_max is {tuple(x_max.shape)}; they must be alike"
        )
    if bool((x_min > x_max).any()):
        raise SettingsError("x_min must not be above x_max")
    bit_tensor = as_bits(bits, x_min.shape, x_min.device)
    low = at_least_float32(x_min).detach().clamp(max=0.0)
    high = at_least_float32(x_max).detach().clamp(min=0.0)
    levels = torch.ldexp(torch.ones_like(low), bit_tensor)  # 2**bits, exact
    if grid == "mid-rise":
        scale = _safe_scale(2.0 * torch.maximum(-low, high) / levels)
        return QParams(scale=scale, zero_point=levels / 2 - 0.5, bits=bit_tensor, grid=grid)
    scale = _safe_scale((high - low) / (levels - 1))
    zero_point = torch.round(-low / scale).nan_to_num(nan=0.0).clamp(min=0).minimum(levels - 1)
    return QParams(scale=scale, zero_point=zero_point, bits=bit_tensor, grid=grid)


def as_bits(bits: int | Tensor, shape: torch.Size, device: torch.device) -> Tensor:
    """`bits` as an int64 tensor of `shape`; SettingsError outside 1..8, ShapeError when it does not fit."""
    if isinstance(bits, Tensor):
        if bits.is_floating_point() or bits.is_complex():
            raise SettingsError(f"bits must be integers in {MIN_BITS}..{MAX_BITS}, got dtype {bits.dtype}")
        if bits.ndim > 0 and bits.shape != shape:
            raise ShapeError(f"bits must be one number or {tuple(shape)}, got {tuple(bits.shape)}")
        tensor = bits.to(device=device, dtype=torch.int64).expand(shape)
    else:
        tensor = torch.full(shape, int(bits), dtype=torch.int64, device=device)
    if tensor.numel() > 0 and (int(tensor.min()) < MIN_BITS or int(tensor.max()) > MAX_BITS):
        got = sorted(set(tensor.flatten().tolist()))
        raise SettingsError(f"bits must be in {MIN_BITS}..{MAX_BITS}, got {got}")
    return tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself in float32 or float64, half precision as float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _safe_scale(scale: Tensor) -> Tensor:
    """Replace a step of 0 by SMALLEST_SCALE and an infinite one by NaN."""
    return torch.where(torch.isinf(scale), torch.nan, scale.clamp(min=SMALLEST_SCALE))


def _aligned(x: Tensor, q: QParams) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, zero_point and highest code, viewed so that they broadcast against x."""
    top = torch.ldexp(torch.ones_like(q.scale.detach()), q.bits) - 1
    if q.scale.ndim == 1 and x.ndim >= 1:
        if q.scale.shape[0] != x.shape[0]:
            raise ShapeError(
                f"{q.scale.shape[0]} scales do not fit {x.shape[0]} channels (the first axis of x)"
            )
        view = (-1,) + (1,) * (x.ndim - 1)
        return q.scale.view(view), q.zero_point.view(view), top.view(view)
    if q.scale.ndim not in (0, x.ndim):
        raise ShapeError(f"scale of shape {tuple(q.scale.shape)} does not fit x of shape {tuple(x.shape)}")
    return q.scale, q.zero_point, top


def _steps(x: Tensor, scale: Tensor, zero_point: Tensor, top: Tensor, *, mid_rise: bool) -> Tensor:
    """Level of every value in units of scale: q - z. A new tensor."""
    steps = x / scale
    if mid_rise:
        steps.floor_().add_(0.5)
    else:
        steps.round_()
    return torch.clamp(steps, -zero_point, top - zero_point, out=steps)


class _FakeQuantize(torch.autograd.Function):
    """Keeps x and the parameters only; the backward pass recomputes the codes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, top: Tensor, mid_rise: bool
    ) -> Tensor:
        """Quantize and dequantize."""
        ctx.save_for_backward(x, scale, zero_point, top)
        ctx.mid_rise = mid_rise
        steps = _steps(at_least_float32(x), scale, zero_point, top, mid_rise=mid_rise)
        return steps.mul_(scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Straight-through inside the range, edges outside."""
        x, scale, zero_point, top = ctx.saved_tensors
        ratio = at_least_float32(x) / scale
        level = torch.floor(ratio) + 0.5 if ctx.mid_rise else torch.round(ratio)
        low, high = -zero_point, top - zero_point
        inside = (level >= low) & (level <= high)
        grad_x = grad_scale = grad_zero = None
        if ctx.needs_input_grad[0]:
            grad_x = grad * inside
        if ctx.needs_input_grad[1]:
            edge = torch.clamp(level, low, high)
            slope = torch.where(inside, level - ratio, edge)
            grad_scale = (grad * slope).sum_to_size(scale.shape)
        if ctx.needs_input_grad[2] and not ctx.mid_rise:
            grad_zero = torch.where(inside, 0.0, -scale * grad).sum_to_size(zero_point.shape)
        return grad_x, grad_scale, grad_zero, None, None
