"""The weight side of a quantized layer: pre-scaling, the search for each channel's range, and mixed grids.

The error table and the deployed layers both call this module, so that a bit is priced with the quantizer that
will spend it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpqdm_core.affine import QParams, fake_quantize
from mpqdm_core.errors import ShapeError
from mpqdm_core.grids import GRIDS, Grid, GridChoice, grid_of
from mpqdm_core.range_search import search_range
from mpqdm_core.rounded_weights import rounded_weight, trains_compiled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightParams:
    """Quantization parameters of a layer's output channels, whose grids may differ; all (C_out,)."""

    scale: Tensor  # step between levels, in units of the pre-scaled weight
    zero_point: Tensor  # in steps; half-integral on mid-rise
    bits: Tensor  # int64, 1..8
    mid_rise: Tensor  # bool: this channel's grid is mid-rise, else affine


def prescaled_weight(weight: Tensor, prescale: Tensor | None, groups: int = 1) -> Tensor:
    """Divide a weight by its input channels' factors.

    Args:
        weight: (O, I) or (O, I / groups, kh, kw).
        prescale: (I,) factors the inputs are multiplied with; None returns `weight` itself.
        groups: groups of the convolution.

    Returns:
        the shape of `weight`.

    Raises:
        ShapeError: the factors do not match the input channels.
    """
    if prescale is None:
        return weight
    if prescale.shape != (weight.shape[1] * groups,):
        raise ShapeError(
            f"expected {weight.shape[1] * groups} prescale factors, got shape {tuple(prescale.shape)}"
        )
    by_group = prescale.view(groups, 1, weight.shape[1])  # (g, 1, I/g)
    factors = by_group.expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[0], weight.shape[1])
    return weight / factors.view(*factors.shape, *[1] * (weight.ndim - 2))


def fit_weight(weight: Tensor, bits: Tensor, *, grid: GridChoice, exponent: float) -> WeightParams:
    """Search the range of every output channel; each depends on its own weights and bits alone.

    Args:
        weight: (C_out, ...) already pre-scaled.
        bits: (C_out,) integers in 1..8.
        grid: where the levels sit.
        exponent: power of the distance the search minimises.

    Raises:
        SettingsError: bits or grid not allowed.
        ShapeError: `weight` or `bits` has a wrong shape.
    """
    flat = weight.detach().float()
    of_width = {width: grid_of(grid, width) for width in torch.unique(bits).tolist()}
    mid_rise_widths = [width for width, name in of_width.items() if name == "mid-rise"]
    is_mid_rise = torch.isin(bits, bits.new_tensor(mid_rise_widths)).to(weight.device)
    used = [name for name in GRIDS if name in of_width.values()]
    fits = {name: search_range(flat, bits.to(weight.device), grid=name, exponent=exponent) for name in used}
    if len(used) == 1:
        only = fits[used[0]]
        return WeightParams(
            scale=only.scale, zero_point=only.zero_point, bits=only.bits, mid_rise=is_mid_rise
        )
    affine, mid_rise = fits["affine"], fits["mid-rise"]
    return WeightParams(
        scale=torch.where(is_mid_rise, mid_rise.scale, affine.scale),
        zero_point=torch.where(is_mid_rise, mid_rise.zero_point, affine.zero_point),
        bits=affine.bits,
        mid_rise=is_mid_rise,
    )


def round_weight(weight: Tensor, params: WeightParams) -> Tensor:
    """Fake-quantize a pre-scaled weight (C_out, ...); straight-through gradients to it, scale and zero-point.

    Returns:
        the shape and dtype of `weight`.
    """
    mid_rise = params.mid_rise
    if trains_compiled(weight, params.scale, params.zero_point):
        return rounded_weight(weight, params.scale, params.zero_point, params.bits, mid_rise)
    parts: dict[Grid, Tensor] = {}
    for name in GRIDS:
        if bool((mid_rise if name == "mid-rise" else ~mid_rise).any()):
            q = QParams(scale=params.scale, zero_point=params.zero_point, bits=params.bits, grid=name)
            parts[name] = fake_quantize(weight, q)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return torch.where(mid_rise.view(-1, *[1] * (weight.ndim - 1)), parts["mid-rise"], parts["affine"])
