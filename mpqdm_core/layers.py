"""Quantized twins of `nn.Linear` and `nn.Conv2d`, simulated, with one bit-width per output channel.

y = Q_a(x * prescale) Q_w((W + B A) / prescale) + bias; the low-rank B A exists while fine-tuning only. Until
frozen, the weight stays real and is rounded at each call, so that it can be trained; frozen, the rounded
weight replaces it and the output is the same bit for bit. Values are floating point throughout: nothing
here runs faster than full precision (`integer_layers` does).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.lora import LowRank
from mpqdm_core.weights import WeightParams, prescaled_weight, round_weight


class QuantLayer(nn.Module):
    """What both kinds share: the weight, its parameters, and freezing."""

    weight: Tensor
    bias: Tensor | None
    bits: Tensor
    mid_rise: Tensor

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        params: WeightParams,
        activation: ActivationQuantizer,
        groups: int = 1,
    ) -> None:
        """Copy a layer's weight and bias.

        Args:
            layer: the full-precision layer; left as it is.
            params: one entry per output channel, fitted to the pre-scaled weight.
            activation: treats the input, and holds the pre-scale factors.
            groups: groups of a convolution.

        Raises:
            ShapeError: `params` has another number of channels.
        """
        super().__init__()
        channels = layer.weight.shape[0]
        if params.bits.shape != (channels,):
            raise ShapeError(f"expected bits for {channels} channels, got shape {tuple(params.bits.shape)}")
        self.groups = groups
        self.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.weight_scale = nn.Parameter(params.scale.detach().clone(), requires_grad=False)
        self.weight_zero_point = nn.Parameter(params.zero_point.detach().clone(), requires_grad=False)
        self.register_buffer("bits", params.bits.clone())
        self.register_buffer("mid_rise", params.mid_rise.clone())
        self.activation = activation
        self.low_rank: LowRank | None = None
        self.held: Tensor | None = None  # stands in for the rounded weight in several calls
        self.frozen = False

    @property
    def out_channels(self) -> int:
        """C_out."""
        return int(self.weight.shape[0])

    @property
    def weight_params(self) -> WeightParams:
        """The parameters as they are now."""
        return WeightParams(
            scale=self.weight_scale, zero_point=self.weight_zero_point, bits=self.bits, mid_rise=self.mid_rise
        )

    def quantized_weight(self) -> Tensor:
        """Return Q_w((W + B A) / prescale), in floating point, of the shape of the weight."""
        if self.frozen:
            return self.weight
        if self.held is not None:
            return self.held
        weight = self.weight if self.low_rank is None else self.weight + self.low_rank.delta()
        prescaled = prescaled_weight(weight, self.activation.prescale, self.groups)
        return round_weight(prescaled, self.weight_params)

    def freeze_(self) -> None:
        """Replace the real weight by the rounded one, for good; outputs stay the same, bit for bit."""
        if self.frozen:
            return
        self.held = None
        with torch.no_grad():
            self.weight = nn.Parameter(self.quantized_weight(), requires_grad=False)
        self.low_rank = None
        self.activation.freeze_()
        self.frozen = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""

    def extra_repr(self) -> str:
        """Say the shape, the mean bits and whether it is frozen."""
        mean_bits = float(self.bits.double().mean())
        return f"{tuple(self.weight.shape)}, bits={mean_bits:.2f}, activation_bits={self.activation.bits}"


class QuantLinear(QuantLayer):
    """`nn.Linear` with simulated quantization."""

    def __init__(self, layer: nn.Linear, params: WeightParams, activation: ActivationQuantizer) -> None:
        """Take over a linear layer; see `QuantLayer`."""
        super().__init__(layer, params, activation)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return functional.linear(self.activation(x), self.quantized_weight(), self.bias)


class QuantConv2d(QuantLayer):
    """`nn.Conv2d` with simulated quantization: any stride, padding, dilation and groups; zero padding."""

    def __init__(self, layer: nn.Conv2d, params: WeightParams, activation: ActivationQuantizer) -> None:
        """Take over a convolution; see `QuantLayer`.

        Raises:
            SettingsError: the convolution pads with something else than zeros.
        """
        super().__init__(layer, params, activation, layer.groups)
        if layer.padding_mode != "zeros":
            raise SettingsError(
                f"only zero padding can be quantized, got padding_mode {layer.padding_mode!r}"
            )
        self.in_channels, self.kernel_size = layer.in_channels, layer.kernel_size
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        return functional.conv2d(
            self.activation(x),
            self.quantized_weight(),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


def quantized_twin(layer: nn.Module, params: WeightParams, activation: ActivationQuantizer) -> QuantLayer:
    """Return the quantized twin of a linear layer or convolution.

    Raises:
        SettingsError: the layer is of another kind.
    """
    if isinstance(layer, nn.Linear):
        return QuantLinear(layer, params, activation)
    if isinstance(layer, nn.Conv2d):
        return QuantConv2d(layer, params, activation)
    raise SettingsError(
        f"only linear layers and 2-D convolutions can be quantized, got {type(layer).__name__}"
    )
