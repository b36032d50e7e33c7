"""What a quantized layer looks like to a file: scales in the precision they are stored with, then codes.

A scale is rounded to the stored precision before anything is computed from it, so that the file holds the
very model that its reader gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.layers import QuantLayer
from mpqdm_core.packing.packed_weight import PackedWeight, dequantize, pack_weight, read_tables
from mpqdm_core.weights import WeightParams, prescaled_weight

ScaleType = Literal["float32", "float16"]
SCALE_TYPES: tuple[ScaleType, ...] = get_args(ScaleType)
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_SMALLEST_HALF = 2.0**-24  # what keeps the step of an all-zero channel from becoming 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedLayer:
    """A layer's weight and its input's tables as they are stored; scales are float32 that fit the type."""

    weight: PackedWeight
    prescale: Tensor | None  # (I,)
    input_scale: Tensor | None  # (T,)
    input_zero_point: Tensor | None  # (T,) whole numbers, float32


def scale_type(name: str) -> torch.dtype:
    """The torch type of a ScaleType.

    Raises:
        SettingsError: there is no such type.
    """
    if name not in _DTYPES:
        raise SettingsError(f"scale_dtype must be one of {', '.join(SCALE_TYPES)}, got {name!r}")
    return _DTYPES[name]


def round_layer(name: str, layer: QuantLayer, scale_dtype: ScaleType) -> RoundedLayer:
    """Round a layer's scales, then its weight to codes; the layer is not touched.

    Args:
        name: of the layer, for errors.
        layer: frozen or still trainable; low-rank corrections are merged, trained zero-points made whole.
        scale_dtype: precision of all scales and pre-scale factors.

    Raises:
        DataError: the weight of a frozen layer is not on its levels, or a scale does not fit the type.
    """
    if layer.weight.dtype != torch.float32:
        raise DataError(f"only float32 models can be packed, but {name} has weights of {layer.weight.dtype}")
    activation = layer.activation
    prescale = _rounded(activation.prescale, scale_dtype, f"a pre-scale factor of {name}")
    params = _whole_params(name, layer, scale_dtype)
    weight = _real_weight(layer, prescale)
    packed = pack_weight(params, weight.shape, lambda rows: weight[rows])
    if layer.frozen and scale_dtype == "float32":
        _check_on_levels(name, packed, weight)
    zero_point = None
    if activation.zero_point is not None and activation.bits is not None:
        zero_point = activation.zero_point.detach().cpu().round().clamp(0, 2**activation.bits - 1)
        if layer.frozen and not torch.equal(zero_point, activation.zero_point.detach().cpu()):
            raise DataError(
                f"the input of {name} has zero-points that are not whole: apply the adapter again"
            )
    return RoundedLayer(
        weight=packed,
        prescale=prescale,
        input_scale=_rounded(activation.scale, scale_dtype, f"an input scale of {name}"),
        input_zero_point=zero_point,
    )


def _real_weight(layer: QuantLayer, prescale: Tensor | None) -> Tensor:
    """Pre-scaled weight that is to be rounded, on the CPU; of a frozen layer, what it was rounded to."""
    with torch.no_grad():
        weight = layer.weight.detach()
        if layer.frozen:
            return weight.cpu()
        if layer.low_rank is not None:
            weight = weight + layer.low_rank.delta()
        return prescaled_weight(weight.cpu(), prescale, layer.groups)


def _whole_params(name: str, layer: QuantLayer, scale_dtype: ScaleType) -> WeightParams:
    given = layer.weight_params
    top = (2**given.bits - 1).to(given.zero_point.dtype)
    whole = torch.minimum(given.zero_point.detach().round().clamp(min=0.0), top)
    scale = _rounded(given.scale, scale_dtype, f"a weight scale of {name}")
    if scale is None:
        raise DataError(f"{name} has no weight scales")
    return WeightParams(
        scale=scale,
        zero_point=torch.where(given.mid_rise, given.zero_point.detach(), whole).cpu(),
        bits=given.bits.cpu(),
        mid_rise=given.mid_rise.cpu(),
    )


def _rounded(scale: Tensor | None, scale_dtype: ScaleType, what: str) -> Tensor | None:
    """Values that the type can hold, in float32."""
    if scale is None:
        return None
    exact = scale.detach().float().cpu()
    if scale_dtype == "float32":
        return exact
    rounded = exact.half().float()
    if bool((torch.isinf(rounded) & ~torch.isinf(exact)).any()):
        raise DataError(f"{what} is {float(exact.max()):g}, above what float16 can hold: take float32 scales")
    return torch.where((rounded == 0) & (exact > 0), _SMALLEST_HALF, rounded)


def _check_on_levels(name: str, packed: PackedWeight, weight: Tensor) -> None:
    levels = dequantize(packed, read_tables(packed.layout, packed.channel_map, packed.zero_points))
    if not torch.equal(levels.nan_to_num(nan=0.0), weight.nan_to_num(nan=0.0)):
        raise DataError(f"the weights of {name} are not on its levels: quantize the model again")
