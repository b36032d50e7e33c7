"""Triton kernels: packed weight times activation, decoding the codes while multiplying.

One launch treats one group of a layer: output channels of one bit-width from 1 to 8, in the storage of
`bitpack`. Convolutions gather their inputs by index, so that nothing is unfolded in memory; a linear layer is
a convolution over single positions. Importing this module needs Triton, which CUDA builds of torch bring.

gemlite, the usual collection of such kernels, is not used: mixed bits within a layer and widths of 3,
5, 6 and 7 bits are not among its formats, so that weights would have to be stored again in larger ones.
"""

# Triton reads a kernel's annotations as part of its program: only constants may have one.
# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mpqdm_core.packing.bitpack import packed_size
from mpqdm_core.packing.packed_weight import ChannelTables, PackedWeight
from mpqdm_core.packing.window import Window

BLOCK_ROWS, BLOCK_CHANNELS, BLOCK_TERMS = (16, 64), 64, 64  # few rows, as in embeddings of time, or many


def multiply(
    weight: PackedWeight,
    tables: ChannelTables,
    x: Tensor,
    window: Window,
    *,
    bias: Tensor | None,
    dtype: torch.dtype,
    step: float | None = None,
    shift: int = 0,
) -> Tensor:
    """Multiply an input with a packed weight.

    Args:
        weight: of a linear layer, or of a convolution in one group.
        tables: of that weight.
        x: (B, C_in, H, W) on the device of the weight. float16, bfloat16 or float32, with sums in float32;
            or, with `step`, int8 codes that stand for step * (code + shift), with sums in integers.
        window: how it is walked over; zero padding.
        bias: (C_out,) or None.
        dtype: of the result.
        step: between two codes; None for floating-point input.
        shift: code + shift is 0 at zero; within -127..128.

    Returns:
        (B, C_out, H', W').
    """
    layout = weight.layout
    batch, _, height, width = x.shape
    out_height, out_width = window.positions(height, width)
    out = torch.empty(batch, layout.channels, out_height, out_width, dtype=dtype, device=x.device)
    rows, terms = batch * out_height * out_width, layout.weights_per_channel
    block_rows = BLOCK_ROWS[rows > BLOCK_ROWS[0]]
    # Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers.
    wide = {"WIDE": not x.is_cuda and x.dtype == torch.bfloat16} if step is None else {}
    numbers: tuple[Any, ...] = () if step is None else (step, shift)
    kernel: Any = _multiply_floats if step is None else _multiply_integers
    first_byte = first_channel = 0
    with torch.cuda.device_of(x):
        for group in layout.groups:
            total, last = group.channels * terms, first_channel + group.channels
            grid = (triton.cdiv(rows, block_rows), triton.cdiv(group.channels, BLOCK_CHANNELS))
            kernel[grid](
                x, weight.codes[first_byte:], tables.zero_point[first_channel:last], weight.scale,
                None if tables.order is None else tables.order[first_channel:last], bias, out, *numbers,
                rows, group.channels, terms, layout.channels,
                _plane_bytes(total, group.bits, (4,)), _plane_bytes(total, group.bits, (4, 2)),
                height, width, out_width, out_height * out_width, *x.stride(),
                *window.stride, *window.padding, *window.dilation,
                BITS=group.bits, KERNEL_H=window.kernel[0], KERNEL_W=window.kernel[1],
                BLOCK_M=block_rows, BLOCK_N=BLOCK_CHANNELS, BLOCK_K=BLOCK_TERMS, **wide,
            )  # fmt: skip
            first_byte += packed_size(total, group.bits)
            first_channel = last
    return out


def _plane_bytes(total: int, bits: int, widths: tuple[int, ...]) -> int:
    """Bytes of those of a group's planes that have one of some widths: where the next one begins."""
    return sum(packed_size(total, width) for width in widths if bits & width)


@triton.jit
def _multiply_floats(
    x, codes, zero_point, scale, order, bias, out,
    rows, channels, terms, outputs, pairs, singles,
    height, width, out_width, positions,
    stride_b, stride_c, stride_h, stride_w,
    step_h, step_w, pad_h, pad_w, dilation_h, dilation_w,
    BITS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One tile of the output: floating-point inputs, levels exact in any of their types, sums in float32."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    top = (row % positions) // out_width * step_h - pad_h
    left = (row % positions) % out_width * step_w - pad_w
    start = (row // positions).to(tl.int64) * stride_b
    zero = tl.load(zero_point + channel, mask=channel < channels, other=0.0)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for first in range(0, terms, BLOCK_K):
        term = first + tl.arange(0, BLOCK_K)
        known = (row < rows)[:, None] & (term < terms)[None, :]
        tile = _gather(
            x, start, top, left, term, known, 0, height, width, stride_c, stride_h, stride_w,
            dilation_h, dilation_w, KERNEL_H, KERNEL_W,
        )  # fmt: skip
        stored = (term < terms)[:, None] & (channel < channels)[None, :]
        code = _decode(codes, channel[None, :] * terms + term[:, None], stored, pairs, singles, BITS)
        level = (code.to(tl.float32) - zero[None, :]).to(tile.dtype)  # exact: at most 8 significant bits
        if WIDE:
            tile, level = tile.to(tl.float32), level.to(tl.float32)
        total = tl.dot(tile, level, total, input_precision="ieee")
    _write(out, total, scale, order, bias, row, channel, rows, channels, outputs, positions)


@triton.jit
def _multiply_integers(
    x, codes, zero_point, scale, order, bias, out, step, shift,
    rows, channels, terms, outputs, pairs, singles,
    height, width, out_width, positions,
    stride_b, stride_c, stride_h, stride_w,
    step_h, step_w, pad_h, pad_w, dilation_h, dilation_w,
    BITS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of the output from int8 inputs: exact sums, rounded once at the end.

    With a the input's code, w the weight's less half its range, z its zero-point less the same:
    sum (a + shift)(w - z) = sum a w + shift sum w - z sum a - n shift z; z may be half of a whole number.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    top = (row % positions) // out_width * step_h - pad_h
    left = (row % positions) % out_width * step_w - pad_w
    start = (row // positions).to(tl.int64) * stride_b
    zero = tl.load(zero_point + channel, mask=channel < channels, other=0.0)
    products = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    weights = tl.zeros((BLOCK_N,), dtype=tl.int32)
    inputs = tl.zeros((BLOCK_M,), dtype=tl.int32)
    for first in range(0, terms, BLOCK_K):
        term = first + tl.arange(0, BLOCK_K)
        known = (row < rows)[:, None] & (term < terms)[None, :]
        tile = _gather(
            x, start, top, left, term, known, -shift, height, width, stride_c, stride_h, stride_w,
            dilation_h, dilation_w, KERNEL_H, KERNEL_W,
        )  # fmt: skip
        tile = tl.where(known, tile, tl.zeros_like(tile))
        stored = (term < terms)[:, None] & (channel < channels)[None, :]
        code = _decode(codes, channel[None, :] * terms + term[:, None], stored, pairs, singles, BITS)
        weight = tl.where(stored, code - (1 << (BITS - 1)), tl.zeros_like(code))
        inputs += tl.sum(tile.to(tl.int32), axis=1)
        weights += tl.sum(weight, axis=0)
        products = tl.dot(tile, weight.to(tl.int8), products, out_dtype=tl.int32)
    twice_zero = (2.0 * zero).to(tl.int64) - (1 << BITS)  # 2 z
    twice = 2 * products.to(tl.int64) + 2 * shift * weights.to(tl.int64)[None, :]
    twice -= twice_zero[None, :] * (inputs.to(tl.int64)[:, None] + shift * terms)
    total = twice.to(tl.float32) * (0.5 * step)
    _write(out, total, scale, order, bias, row, channel, rows, channels, outputs, positions)


@triton.jit
def _gather(
    x, start, top, left, term, known, outside, height, width,
    stride_c, stride_h, stride_w, dilation_h, dilation_w,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
):  # fmt: skip
    """The inputs behind rows and terms, in the order of a channel's weights; `outside` where it is padded."""
    place = term % (KERNEL_H * KERNEL_W)
    y = top[:, None] + (place // KERNEL_W)[None, :] * dilation_h
    z = left[:, None] + (place % KERNEL_W)[None, :] * dilation_w
    within = known & (y >= 0) & (y < height) & (z >= 0) & (z < width)
    channel = (term // (KERNEL_H * KERNEL_W))[None, :]
    return tl.load(
        x + start[:, None] + channel * stride_c + y * stride_h + z * stride_w, mask=within, other=outside
    )


@triton.jit
def _decode(codes, place, stored, pairs, singles, BITS: tl.constexpr):
    """The codes at some places of a group: planes of 4, 2 and 1 bits joined, or whole bytes; int32."""
    if BITS == 8:
        code = tl.load(codes + place, mask=stored, other=0).to(tl.int32)
    else:
        code = tl.zeros_like(place)
        if BITS & 4 != 0:
            byte = tl.load(codes + (place >> 1), mask=stored, other=0).to(tl.int32)
            code += (byte >> ((place & 1) * 4)) & 15
        if BITS & 2 != 0:
            byte = tl.load(codes + pairs + (place >> 2), mask=stored, other=0).to(tl.int32)
            code += ((byte >> ((place & 3) * 2)) & 3) << (BITS & 4)
        if BITS & 1 != 0:
            byte = tl.load(codes + singles + (place >> 3), mask=stored, other=0).to(tl.int32)
            code += ((byte >> (place & 7)) & 1) << (BITS & 6)
    return code


@triton.jit
def _write(
    out, total, scale, order, bias, row, channel,
    rows, channels, outputs, positions,
):  # fmt: skip
    """Apply scales and bias, and put a tile into the channels of the layer's own order."""
    known = channel < channels
    place = channel
    if order is not None:
        place = tl.load(order + channel, mask=known, other=0).to(tl.int32)
    total *= tl.load(scale + place, mask=known, other=0.0)[None, :]
    if bias is not None:
        total += tl.load(bias + place, mask=known, other=0.0).to(tl.float32)[None, :]
    address = (row // positions).to(tl.int64)[:, None] * outputs + place[None, :]
    address = address * positions + (row % positions)[:, None]
    inside = (row < rows)[:, None] & known[None, :]
    tl.store(out + address, total.to(out.dtype.element_ty), mask=inside)
