"""Quantized layers that multiply whole numbers on a CPU, with the instructions made for bytes (VNNI).

y = s_x s_w sum (q_x - z_x) k_w + bias, where the codes q_x of the input and the steps k_w of the weight are
bytes: their products are summed exactly in 32-bit integers, by oneDNN. `QuantLayer` computes the same sums in
floating point, so the two differ by its rounding alone. A network of many layers turns such differences into
other roundings of later inputs: pictures are as alike as those of two batch sizes, not bit for bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.errors import SettingsError
from mpqdm_core.layers import QuantConv2d, QuantLayer

LARGEST_STEP = 127  # of a weight, in steps or half steps: a signed byte
INPUT_BITS = 8  # an input's codes are unsigned bytes
MOST_TERMS = (2**31 - 1) // ((2**INPUT_BITS - 1) * LARGEST_STEP)  # of a sum that stays within 32 bits
FROM_WHOLE = 1e-3  # how far float32 may leave a weight's steps from whole
BYTE_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Any of these sums products of bytes in 32 bits; older instructions saturate at 16."""
PLAIN: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
"""Of a product's result: neither rounded again nor followed by another operation."""


def multiply_integers_(network: nn.Module) -> tuple[str, ...]:
    """Let the frozen quantized layers of a network multiply whole numbers, where they can.

    A layer stays as it is where inputs are not rounded to at most 8 bits, where its weights need more than a
    byte (8 bits with a zero-point at the edge), where a trained zero-point is not whole, where a sum could
    leave 32 bits, where padding is not the same on both sides, or off the CPU.

    Args:
        network: with frozen `QuantLayer`s, in evaluation; changed in place, and not trainable any more.

    Returns:
        names of the layers that multiply whole numbers now; none where this machine has no such instructions.

    Raises:
        SettingsError: a quantized layer is not frozen.
    """
    if not integers_supported():
        return ()
    changed = []
    for name, layer in list(network.named_modules()):
        if isinstance(layer, QuantLayer) and (twin := integer_twin(layer)) is not None:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, twin)
            changed.append(name)
    return tuple(changed)


def integer_twin(layer: QuantLayer) -> IntegerLayer | None:
    """The layer with whole numbers, or None where they do not fit.

    Raises:
        SettingsError: the layer is not frozen.
    """
    if not layer.frozen:
        raise SettingsError("only a frozen layer multiplies whole numbers: its weights may still change")
    steps = _whole_steps(layer)
    bits, zero_point = layer.activation.bits, layer.activation.zero_point
    if steps is None or bits is None or bits > INPUT_BITS or zero_point is None:
        return None
    if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32:
        return None
    if not torch.equal(zero_point, zero_point.round()) or layer.weight[0].numel() > MOST_TERMS:
        return None
    if isinstance(layer, QuantConv2d) and _padding(layer) is None:
        return None
    return IntegerLayer(layer, *steps)


def _whole_steps(layer: QuantLayer) -> tuple[Tensor, Tensor] | None:
    """Weights as whole multiples of a step of their channel: int8 of the weight's shape, and (C_out,) steps.

    A channel of the mid-rise grid counts in half steps.
    """
    by_channel = (-1, *[1] * (layer.weight.ndim - 1))
    weight, scale = layer.weight.detach().double(), layer.weight_scale.detach().double()
    halves = torch.where(layer.mid_rise, 2.0, 1.0).double()
    step = scale / halves
    exact = weight / step.view(by_channel)
    whole = exact.round()
    if bool(((exact - whole).abs() > FROM_WHOLE).any()) or bool((whole.abs() > LARGEST_STEP).any()):
        return None
    return whole.to(torch.int8), step.float()


class IntegerLayer(nn.Module):
    """Takes the place of a frozen `QuantLayer`; for calls without gradients, at one timestep each."""

    def __init__(self, layer: QuantLayer, steps: Tensor, step: Tensor) -> None:
        """Pack a layer's weight for the machine.

        Args:
            layer: frozen; its input quantizer and bias are shared.
            steps: int8, of the weight's shape.
            step: (C_out,) float32, size of one of them.
        """
        super().__init__()
        self.activation = layer.activation
        self.bias = layer.bias
        self.register_buffer("step", step)
        self.register_buffer("_none", torch.zeros(len(step), dtype=torch.int32))
        self.window: tuple[list[int], list[int], list[int], int] | None = None
        if isinstance(layer, QuantConv2d):
            self.window = list(layer.stride), _padding(layer) or [0, 0], list(layer.dilation), layer.groups
            self.packed = torch.ops.onednn.qconv_prepack(steps, step, 1.0, 0, *self.window)
        else:
            self.packed = torch.ops.onednn.qlinear_prepack(steps, None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W'), channels last in memory; or (..., C_in) -> (..., C_out)."""
        counted, lowest, scale = self.activation.steps(x)
        codes = counted.sub_(lowest).to(torch.uint8)
        inputs = scale, int(-lowest), self.packed, self.step, self._none, self.bias
        if self.window is None:
            result: Tensor = torch.ops.onednn.qlinear_pointwise(codes.contiguous(), *inputs, *PLAIN)
        else:
            codes = codes.contiguous(memory_format=torch.channels_last)
            result = torch.ops.onednn.qconv2d_pointwise(codes, *inputs, *self.window, *PLAIN)
        return result


def _padding(layer: QuantConv2d) -> list[int] | None:
    """Zeros on each side, where "same" and "valid" are words for them; None where the sides differ."""
    if not isinstance(layer.padding, str):
        return list(layer.padding)
    if layer.padding == "valid":
        return [0, 0]
    total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    return None if any(count % 2 for count in total) else [count // 2 for count in total]


@lru_cache
def integers_supported() -> bool:
    """Whether this CPU and this build of torch sum products of bytes, and do it right; tried once."""
    if not any(torch.cpu.get_capabilities().get(name) for name in BYTE_PRODUCTS):
        return False
    codes = torch.arange(256, dtype=torch.uint8).view(2, 128)
    steps = (torch.arange(3 * 128) % 255 - 127).to(torch.int8).view(3, 128)
    wanted = (codes.long() - 5) @ steps.long().T
    step, none = torch.ones(3), torch.zeros(3, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(steps, None)
        got = torch.ops.onednn.qlinear_pointwise(codes, 1.0, 5, packed, step, none, None, *PLAIN)
    except (RuntimeError, AttributeError):  # a build without oneDNN
        return False
    return torch.equal(got.long(), wanted)
