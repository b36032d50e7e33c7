"""How many bits a quantized model really takes: nominal, effective, and the estimate of a file.

Nominal is the mean over the quantizable weights alone. Effective adds what those layers need beside their
weights. The estimate adds everything else: exempt layers, biases, norms and embeddings. Quantization is
simulated: the estimate says what a packed file would hold, not what is in memory now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.error_table import BITS
from mpqdm_core.grids import grid_of
from mpqdm_core.quant_settings import EXEMPT_BITS, QuantSettings

if TYPE_CHECKING:
    from mpqdm_core.denoiser import Denoiser, Exemption, LayerSpec

SCALE_BITS = 16  # a scale or pre-scale factor is stored in half precision
FULL_BITS = 16  # a value left in full precision is stored in half precision
REFERENCE_BITS = 32  # the size quantization is compared with: the model as it was loaded, in single precision
BITS_PER_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BitItem:
    """One line of the account."""

    name: str
    bits: int
    of_quantized_layers: bool  # counts towards the effective bits


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptLayer:
    """One layer outside the budget."""

    name: str
    exempt: Exemption
    bits: int  # per weight
    parameters: int
    macs: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BitReport:
    """Three numbers that must not be mixed up, what they are made of, and what they leave out."""

    nominal_bits: float  # mean bits per quantizable weight
    effective_bits: float  # the same with scales, zero-points, maps, pre-scaling and temporal tables
    model_bits: float  # per parameter of the whole network, everything included
    bytes_estimate: int  # of the packed network
    bytes_full_precision: int  # of the network in single precision
    activation_bits: int | None
    items: tuple[BitItem, ...]
    exempt: tuple[ExemptLayer, ...]
    exempt_parameter_share: float  # of all parameters of the network
    exempt_mac_share: (
        float  # of the multiply-accumulates in linear layers and convolutions; attention products aside
    )


def report_bits(denoiser: Denoiser, plan: BitPlan, settings: QuantSettings, *, timesteps: int) -> BitReport:
    """Account for every bit of a plan, without quantizing anything: fast enough for a slider.

    Args:
        denoiser: full precision.
        plan: bits of its quantizable layers.
        settings: how values are rounded; mid-rise grids store no zero-point, since it follows from the bits.
        timesteps: length of the temporal tables.
    """
    activation_bits, exempt_bits = settings.activation_bits, settings.exempt_bits
    affine_widths = [bits for bits in BITS if grid_of(settings.grid, bits) == "affine"]
    layers = denoiser.quantizable_layers
    channel_bits = np.asarray(plan.bits, dtype=np.int64)
    per_channel = np.repeat(plan.weights_per_channel, np.diff(plan.layer_start))
    weight_bits = int((channel_bits * per_channel).sum())
    weights = int(per_channel.sum())
    rounded_exempt = [
        s for s in denoiser.exempt_layers if _exempt_bits(s, exempt_bits) < FULL_BITS and s.macs > 0
    ]
    tables = 0 if activation_bits is None else timesteps * (SCALE_BITS + activation_bits)
    exempt_tables = 0 if activation_bits is None else timesteps * (SCALE_BITS + EXEMPT_BITS)
    exempt_zero_points = EXEMPT_BITS if EXEMPT_BITS in affine_widths else 0
    exempt_scales = sum(s.out_channels * (SCALE_BITS + exempt_zero_points) for s in rounded_exempt)
    exempt_weights = sum(_weights(s) * _exempt_bits(s, exempt_bits) for s in denoiser.exempt_layers)
    others = denoiser.parameters - weights - sum(map(_weights, denoiser.exempt_layers))
    items = (
        BitItem(name="quantized weights", bits=weight_bits, of_quantized_layers=True),
        BitItem(name="weight scales", bits=SCALE_BITS * len(channel_bits), of_quantized_layers=True),
        BitItem(
            name="weight zero-points",
            bits=int(channel_bits[np.isin(channel_bits, affine_widths)].sum()),
            of_quantized_layers=True,
        ),
        BitItem(name="bits of each channel", bits=_map_bits(plan), of_quantized_layers=True),
        BitItem(
            name="pre-scale factors",
            bits=SCALE_BITS * sum(s.in_channels for s in layers)
            if settings.prescale_alpha is not None
            else 0,
            of_quantized_layers=True,
        ),
        BitItem(name="activation ranges by timestep", bits=tables * len(layers), of_quantized_layers=True),
        BitItem(name="exempt layers' weights", bits=exempt_weights, of_quantized_layers=False),
        BitItem(
            name="exempt layers' scales and ranges",
            bits=exempt_scales + exempt_tables * len(rounded_exempt),
            of_quantized_layers=False,
        ),
        BitItem(name="biases, norms, embeddings", bits=FULL_BITS * others, of_quantized_layers=False),
    )
    total = sum(item.bits for item in items)
    all_macs = sum(layer.macs for layer in denoiser.layers)
    return BitReport(
        nominal_bits=weight_bits / weights,
        effective_bits=sum(item.bits for item in items if item.of_quantized_layers) / weights,
        model_bits=total / denoiser.parameters,
        bytes_estimate=math.ceil(total / BITS_PER_BYTE),
        bytes_full_precision=denoiser.parameters * REFERENCE_BITS // BITS_PER_BYTE,
        activation_bits=activation_bits,
        items=items,
        exempt=tuple(
            ExemptLayer(
                name=s.name,
                exempt=s.exempt or "full precision",
                bits=_exempt_bits(s, exempt_bits),
                parameters=s.parameters,
                macs=s.macs,
                reason=s.reason,
            )
            for s in denoiser.exempt_layers
        ),
        exempt_parameter_share=sum(s.parameters for s in denoiser.exempt_layers) / denoiser.parameters,
        exempt_mac_share=sum(s.macs for s in denoiser.exempt_layers) / max(all_macs, 1),
    )


def _weights(layer: LayerSpec) -> int:
    return layer.out_channels * layer.weights_per_channel


def _exempt_bits(layer: LayerSpec, exempt_bits: int | None) -> int:
    return exempt_bits if layer.exempt == "8-bit" and exempt_bits is not None else FULL_BITS


def _map_bits(plan: BitPlan) -> int:
    """Return the size of the channel -> bits map: ceil(log2 of a layer's bit-widths) for each channel."""
    widths: Iterable[tuple[int, int]] = (
        (len(np.unique(bits)), len(bits)) for bits in np.split(plan.bits, plan.layer_start[1:-1])
    )
    return sum(channels * math.ceil(math.log2(groups)) for groups, channels in widths)
