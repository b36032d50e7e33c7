"""Layers whose weights stay packed in memory, and are unpacked to floating point when they are used.

The arithmetic is that of the simulated layers they replace: inputs are rounded in floating point and
multiplied with floating-point weights. What is saved is memory, not multiplications. On CUDA, kernels can
multiply with the packed weights themselves, see `multiplication`.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError
from mpqdm_core.layers import QuantLayer
from mpqdm_core.packing.multiplication import kernels_for, packed_product
from mpqdm_core.packing.packed_weight import (
    ChannelTables,
    PackedWeight,
    WeightLayout,
    dequantize,
    read_tables,
    weight_params,
)
from mpqdm_core.packing.unpack_cache import UnpackCache
from mpqdm_core.packing.window import Window
from mpqdm_core.weights import WeightParams

Mode = Literal["packed", "frozen"]
MODES: tuple[Mode, ...] = get_args(Mode)
_KEYS = itertools.count()


class PackedLayer(QuantLayer):
    """What both kinds share: the packed weight, its tables, and the ways to use it."""

    weight_packed: Tensor
    weight_scale: Tensor  # type: ignore[assignment]  # a parameter of the layers that can be trained
    weight_map: Tensor | None
    weight_zero: Tensor | None

    # Not `QuantLayer.__init__`, which takes over a full-precision weight: there is none here.
    def __init__(
        self,
        weight: PackedWeight,
        bias: Tensor | None,
        activation: ActivationQuantizer,
        groups: int,
        cache: UnpackCache,
    ) -> None:
        """Take over the stored parts; they may be on the meta device until they are loaded.

        Args:
            weight: packed.
            bias: (C_out,) or None.
            activation: treats the input, and holds the pre-scale factors.
            groups: groups of a convolution.
            cache: shared by the layers of a network.
        """
        nn.Module.__init__(self)
        self.layout: WeightLayout = weight.layout
        self.groups = groups
        self.activation = activation
        self.cache = cache
        self.key = next(_KEYS)  # of this layer's weight in the cache
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("weight_packed", weight.codes)
        self.register_buffer("weight_scale", weight.scale)
        self.register_buffer("weight_map", weight.channel_map if self.layout.map_bytes else None)
        self.register_buffer("weight_zero", weight.zero_points if self.layout.zero_point_bytes else None)
        self.unpacked: Tensor | None = None  # no buffer: accelerate cannot offload a buffer that may be None
        self.dtype = torch.float32
        self.kernels = True  # multiplies without unpacking where that is possible
        self.low_rank = None
        self.held = None
        self.frozen = True
        self._tables: ChannelTables | None = None

    @property
    def out_channels(self) -> int:
        """C_out."""
        return self.layout.channels

    @property
    def mode(self) -> Mode:
        """`packed`: unpacked at each use; `frozen`: the unpacked weight is kept beside the packed one."""
        return "packed" if self.unpacked is None else "frozen"

    @property
    def packed_weight(self) -> PackedWeight:
        """The stored parts."""
        empty = self.weight_packed.new_empty(0)
        return PackedWeight(
            layout=self.layout,
            codes=self.weight_packed,
            channel_map=empty if self.weight_map is None else self.weight_map,
            zero_points=empty if self.weight_zero is None else self.weight_zero,
            scale=self.weight_scale,
        )

    @property
    def tables(self) -> ChannelTables:
        """Order and zero-points of the channels, read at the first use."""
        # Offloading moves buffers without telling the module.
        if self._tables is None or self._tables.zero_point.device != self.weight_packed.device:
            weight = self.packed_weight
            self._tables = read_tables(weight.layout, weight.channel_map, weight.zero_points)
        return self._tables

    @property
    def weight_params(self) -> WeightParams:
        """The parameters of every output channel."""
        return weight_params(self.packed_weight, self.tables)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # computed here, an attribute in the other layers
        """The unpacked weight."""
        return self.quantized_weight()

    @property
    def bits(self) -> Tensor:  # type: ignore[override]
        """(C_out,) int64."""
        return self.weight_params.bits

    @property
    def mid_rise(self) -> Tensor:  # type: ignore[override]
        """(C_out,) bool."""
        return self.weight_params.mid_rise

    def quantized_weight(self) -> Tensor:
        """Return the rounded weight in floating point; unpacks it unless it is frozen or in the cache."""
        if self.unpacked is not None:
            return self.unpacked.to(self.weight_packed.device)  # offloading moves buffers only
        kept = self.cache.get(self.key)
        if kept is not None and kept.device == self.weight_packed.device:
            return kept
        with torch.inference_mode(False):  # what is kept must serve calls with gradients too
            weight = dequantize(self.packed_weight, self.tables, self.dtype)
        self.cache.offer(self.key, weight)
        return weight

    def set_mode(self, mode: Mode, dtype: torch.dtype = torch.float32) -> None:
        """Say how the weight is kept.

        Args:
            mode: see `mode`.
            dtype: that it is unpacked to, and multiplied in; float32 gives the results of the exported model.

        Raises:
            SettingsError: there is no such mode, the type is no floating-point type, or the weight is
                offloaded and cannot be frozen.
        """
        if mode not in MODES:
            raise SettingsError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if not dtype.is_floating_point:
            raise SettingsError(f"dtype must be a floating-point type, got {dtype}")
        if mode == "frozen" and self.weight_packed.is_meta:
            raise SettingsError(
                "the weights are offloaded and cannot be unpacked here: freeze the model before offloading it"
            )
        self.cache.drop(self.key)
        self.dtype = dtype
        self.unpacked = None
        if mode == "frozen":
            self.unpacked = dequantize(self.packed_weight, self.tables, dtype)

    def freeze_(self) -> None:
        """Keep the unpacked weight."""
        self.activation.freeze_()
        if self.unpacked is None:
            self.set_mode("frozen", self.dtype)

    @property
    @abstractmethod
    def window(self) -> Window | None:
        """How it walks over its input; None in a way of its own."""

    @abstractmethod
    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the layer's product to a rounded input."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        if self.kernels and self.unpacked is None and kernels_for(x.device) is not None:
            product = packed_product(
                x, self.activation, self.packed_weight, self.tables, self.window,
                bias=self.bias, dtype=self.dtype,
            )  # fmt: skip
            if product is not None:
                return product
        weight = self.quantized_weight()
        bias = None if self.bias is None else self.bias.to(weight.dtype)
        return self.multiply(self.activation(x).to(weight.dtype), weight, bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Say the shape, how many channels have how many bits, and how the weight is kept."""
        groups = ", ".join(f"{g.channels} x {g.bits} bits {g.grid}" for g in self.layout.groups)
        return f"{self.layout.shape}, {groups}, activation_bits={self.activation.bits}, mode={self.mode}"

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PackedLayer:
        if fn(torch.empty(1, device=self.weight_scale.device)).dtype != torch.float32:
            raise SettingsError(
                "packed layers keep the types of their tables: choose another type for the arithmetic with "
                "set_mode(network, mode, dtype), or with torch_dtype when loading"
            )
        self.cache.drop(self.key)  # it may be on another device
        self._tables = None
        if self.unpacked is not None:
            self.unpacked = fn(self.unpacked)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}


class PackedLinear(PackedLayer):
    """A linear layer with a packed weight."""

    def __init__(
        self,
        layer: nn.Linear,
        weight: PackedWeight,
        activation: ActivationQuantizer,
        cache: UnpackCache,
    ) -> None:
        """Stand in for a linear layer, from which only sizes and bias are taken."""
        super().__init__(weight, layer.bias, activation, 1, cache)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    @property
    def window(self) -> Window:
        """Over single positions."""
        return Window()

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return functional.linear(x, weight, bias)


class PackedConv2d(PackedLayer):
    """A convolution with a packed weight: any stride, padding, dilation and groups; zero padding."""

    def __init__(
        self,
        layer: nn.Conv2d,
        weight: PackedWeight,
        activation: ActivationQuantizer,
        cache: UnpackCache,
    ) -> None:
        """Stand in for a convolution, from which only sizes and bias are taken."""
        super().__init__(weight, layer.bias, activation, layer.groups, cache)
        self.in_channels, self.kernel_size = layer.in_channels, layer.kernel_size
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    @property
    def window(self) -> Window | None:
        """None for several groups, or padding given in words."""
        if self.groups > 1 or isinstance(self.padding, str):
            return None
        (kh, kw), (sh, sw) = self.kernel_size, self.stride
        (ph, pw), (dh, dw) = self.padding, self.dilation
        return Window(kernel=(kh, kw), stride=(sh, sw), padding=(ph, pw), dilation=(dh, dw))

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
