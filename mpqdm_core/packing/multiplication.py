"""Whether a packed layer can multiply without unpacking its weight, and doing so.

On CUDA, where Triton is installed, the kernels of `triton_kernels` do it. They are compared with the unpacked
product once a device; where they cannot be compiled or disagree, weights are unpacked and the log says so.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.packing.packed_weight import (
    ChannelTables,
    PackedWeight,
    dequantize,
    pack_weight,
    read_tables,
)
from mpqdm_core.packing.window import Window
from mpqdm_core.weights import WeightParams

BYTE_BITS = 8  # inputs of up to so many bits are multiplied as integers
MIDDLE = 2 ** (BYTE_BITS - 1)  # an input's code minus this fits a signed byte
MAX_TERMS = 2 ** (31 - 2 * (BYTE_BITS - 1))  # products of signed bytes whose sum fits 32 bits
MAX_CODES = 2**31  # of a layer: their places are counted with 32 bits
TRIED_SHAPE, TRIED_BITS, TRIED_ROWS, TRIED_STEP = (16, 48), 3, 5, 0.25
logger = logging.getLogger(__name__)


def packed_product(
    x: Tensor,
    activation: ActivationQuantizer,
    weight: PackedWeight,
    tables: ChannelTables,
    window: Window | None,
    *,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor | None:
    """Round an input and multiply it with a packed weight.

    Inputs of up to 8 bits are multiplied as integers, exactly; others in floating point with sums in float32.

    Args:
        x: (..., C_in) of a linear layer or (B, C_in, H, W) of a convolution.
        activation: rounds it.
        weight: of the layer.
        tables: of that weight.
        window: None where the layer walks in a way that the kernels do not know.
        bias: (C_out,) or None.
        dtype: that inputs are multiplied in, unless as integers.

    Returns:
        the layer's output, of the type of `x`; None where weights must be unpacked instead.
    """
    differentiated = torch.is_grad_enabled() and x.requires_grad
    layout = weight.layout
    linear = len(layout.shape) == 2
    if window is None or differentiated or x.numel() == 0 or not (linear or x.ndim == 4):
        return None
    kernels = kernels_for(x.device)
    if kernels is None or layout.channels * layout.weights_per_channel >= MAX_CODES:
        return None
    step, shift = None, 0
    if (
        activation.bits is not None
        and activation.bits <= BYTE_BITS
        and layout.weights_per_channel < MAX_TERMS
    ):
        steps, lowest, step = activation.steps(x)
        inputs = (steps - (lowest + MIDDLE)).to(torch.int8)
        shift = int(lowest) + MIDDLE
    else:
        inputs = activation(x).to(dtype)
    maps = inputs.reshape(-1, layout.shape[1], 1, 1) if linear else inputs
    product: Tensor = kernels.multiply(
        weight, tables, maps, window, bias=bias, dtype=x.dtype, step=step, shift=shift
    )
    return product.view(*x.shape[:-1], layout.channels) if linear else product


@lru_cache(maxsize=16)
def kernels_for(device: torch.device) -> Any:
    """The module of the kernels, if they work on a device; None where there is no Triton, or no CUDA."""
    # Triton's interpreter runs kernels on the CPU, for tests.
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    try:
        kernels: Any = importlib.import_module("mpqdm_core.packing.triton_kernels")
    except ImportError:
        return None
    try:
        works = _agree(kernels, device)
    except Exception as error:  # whatever a compiler, a driver or a missing C compiler raises
        logger.warning("Triton's kernels do not work on %s (%r): weights are unpacked", device, error)
        return None
    if not works:
        logger.warning("Triton's kernels miscalculate on %s: weights are unpacked", device)
    return kernels if works else None


def _agree(kernels: Any, device: torch.device) -> bool:
    """Whether both kernels give the product of the unpacked weight, on a small layer."""
    channels, inputs = TRIED_SHAPE
    exact = torch.arange(channels * inputs).mul(7).remainder(2**TRIED_BITS).view(TRIED_SHAPE).float()
    params = WeightParams(
        scale=torch.full((channels,), TRIED_STEP),
        zero_point=torch.full((channels,), 1.0),
        bits=torch.full((channels,), TRIED_BITS),
        mid_rise=torch.zeros(channels, dtype=torch.bool),
    )
    packed = pack_weight(params, TRIED_SHAPE, lambda rows: (exact[rows] - 1.0) * TRIED_STEP)
    weight = PackedWeight(
        layout=packed.layout,
        codes=packed.codes.to(device),
        channel_map=packed.channel_map.to(device),
        zero_points=packed.zero_points.to(device),
        scale=packed.scale.to(device),
    )
    tables = read_tables(weight.layout, weight.channel_map, weight.zero_points)
    codes = torch.arange(TRIED_ROWS * inputs, device=device).remainder(11).sub(5).view(-1, inputs, 1, 1)
    expected = codes.flatten(1).float() @ dequantize(weight, tables).T  # small whole numbers: exact
    settings = {"bias": None, "dtype": torch.float32}
    floats = kernels.multiply(weight, tables, codes.float(), Window(), **settings).flatten(1)
    whole = kernels.multiply(weight, tables, codes.to(torch.int8), Window(), step=1.0, **settings).flatten(1)
    return torch.equal(floats, expected) and torch.equal(whole, expected)
