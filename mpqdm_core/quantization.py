"""Turning a bit plan into a quantized denoiser: simulated quantization, in floating point.

The same preparation of a layer (`prepare_layer`) serves the error table, so a plan is carried out with the
very quantizers it was priced with.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.bit_report import BitReport, report_bits
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser, LayerSpec
from mpqdm_core.errors import DataError
from mpqdm_core.input_stats import LayerInputStats
from mpqdm_core.layers import QuantLayer, quantized_twin
from mpqdm_core.prescale import input_channel_absmax, prescale_factors
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import EXEMPT_BITS, QuantSettings
from mpqdm_core.range_search import search_range_tensor
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight, prescaled_weight


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedLayer:
    """A layer's pre-scaling and input quantizer, before any bit is given to its weights."""

    weight: Tensor  # pre-scaled, float32, detached
    activation: ActivationQuantizer


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedDenoiser:
    """A denoiser whose network is quantized (simulated), and what it costs."""

    denoiser: Denoiser
    plan: BitPlan
    settings: QuantSettings
    bit_report: BitReport
    source_hash: str  # of the full-precision model
    calibration_hash: str

    @property
    def content_hash(self) -> str:
        """Hash of model, calibration, plan and settings: 64 hex digits."""
        return self.denoiser.content_hash

    @property
    def layers(self) -> dict[str, QuantLayer]:
        """The quantized layers by name."""
        return {name: m for name, m in self.denoiser.network.named_modules() if isinstance(m, QuantLayer)}


def quantize(
    denoiser: Denoiser,
    calibration: Calibration,
    plan: BitPlan,
    settings: QuantSettings | None = None,
    report: Report = silent,
    *,
    freeze: bool = True,
) -> QuantizedDenoiser:
    """Quantize a copy of the network; the given model is not touched.

    Args:
        denoiser: full precision.
        calibration: taken from this model.
        plan: bits of every quantizable layer.
        settings: None takes the defaults.
        report: told every layer; may raise `Cancelled`.
        freeze: round the weights once and for all, which is faster to sample; False keeps them trainable.

    Raises:
        DataError: plan or calibration belong to another model.
        SettingsError: a layer cannot be quantized, or memory ran out.
        Cancelled: raised by `report`.
    """
    settings = settings or QuantSettings()
    check_match(denoiser, calibration)
    if plan.layer_names != tuple(layer.name for layer in denoiser.quantizable_layers):
        raise DataError(
            f"the bit plan is for other layers than the {len(denoiser.quantizable_layers)} of {denoiser.name}"
        )
    targets = [layer for layer in denoiser.layers if is_quantized(layer, settings)]
    network = _copy_without(denoiser.network, [layer.name for layer in targets])
    clock = TimestepClock(calibration.timesteps)
    for done, spec in enumerate(targets):
        report(done, len(targets), f"quantizing {spec.name}")
        bits = torch.from_numpy(plan.layer_bits(spec.name).astype("int64")) if spec.exempt is None else None
        replace_module(
            network, spec.name, _quantized(network, spec, bits, calibration, settings, clock, freeze)
        )
    clock.attach(network)
    report(len(targets), len(targets), "quantized")
    digest = hashlib.sha256(
        json.dumps(
            [
                denoiser.content_hash,
                calibration.content_hash,
                plan.content_hash,
                settings.as_dict(),
                {layer.name: layer.exempt for layer in denoiser.exempt_layers},
            ],
            sort_keys=True,
        ).encode()
    ).hexdigest()
    return QuantizedDenoiser(
        denoiser=denoiser.with_network(network.requires_grad_(False), content_hash=digest),
        plan=plan,
        settings=settings,
        bit_report=report_bits(denoiser, plan, settings, timesteps=len(calibration.timesteps)),
        source_hash=denoiser.content_hash,
        calibration_hash=calibration.content_hash,
    )


def check_match(denoiser: Denoiser, calibration: Calibration) -> None:
    """Make sure that a calibration was taken from this model.

    Raises:
        DataError: it was not.
    """
    if calibration.denoiser_hash != denoiser.content_hash:
        raise DataError(f"the calibration was taken from another model than {denoiser.name}: calibrate again")
    missing = [
        layer.name for layer in denoiser.layers if layer.macs > 0 and layer.name not in calibration.layers
    ]
    if missing:
        raise DataError(f"the calibration has no statistics for layer {missing[0]}: calibrate again")


def is_quantized(layer: LayerSpec, settings: QuantSettings) -> bool:
    """Whether a layer is rounded at all: quantizable, or exempt at 8 bits where the settings say so."""
    return layer.exempt is None or (
        layer.exempt == "8-bit" and settings.exempt_bits is not None and layer.macs > 0
    )


def layer_prescale(
    layer: nn.Module, groups: int, stats: LayerInputStats, alpha: float | None
) -> Tensor | None:
    """Return the (C_in,) factors of a layer's inputs, from their largest values; None without alpha."""
    if alpha is None:
        return None
    weight = layer.get_parameter("weight")
    absmax = stats.absmax.amax(dim=0).to(weight.device)
    return prescale_factors(input_channel_absmax(weight, groups=groups), absmax, alpha=alpha)


def prepare_layer(
    layer: nn.Module, spec: LayerSpec, stats: LayerInputStats, settings: QuantSettings, clock: TimestepClock
) -> PreparedLayer:
    """Choose a layer's pre-scale factors and the range of its input at each timestep.

    Exempt layers are not pre-scaled and get 8-bit inputs; with activations at full precision so are theirs.
    """
    exempt = spec.exempt is not None
    prescale = None if exempt else layer_prescale(layer, spec.groups, stats, settings.prescale_alpha)
    weight = prescaled_weight(layer.get_parameter("weight").detach().float(), prescale, spec.groups)
    bits = settings.activation_bits
    if bits is not None and exempt:
        bits = EXEMPT_BITS
    axis = 1 if spec.kind == "conv" else -1
    if bits is None:
        return PreparedLayer(
            weight=weight, activation=ActivationQuantizer(channel_axis=axis, prescale=prescale)
        )
    scale, zero_point = activation_ranges(stats, prescale, bits, settings.range_exponent)
    scale = scale * spec.input_headroom
    activation = ActivationQuantizer(
        channel_axis=axis,
        prescale=prescale,
        bits=bits,
        scale=scale.to(weight.device),
        zero_point=zero_point.to(weight.device),
        clock=clock,
    )
    return PreparedLayer(weight=weight, activation=activation)


def activation_ranges(
    stats: LayerInputStats, prescale: Tensor | None, bits: int, exponent: float
) -> tuple[Tensor, Tensor]:
    """Search one input range per timestep, on the sampled rows plus the true ends of the pre-scaled range.

    Returns:
        scale (T,) and zero-point (T,), float32.
    """
    factors = torch.ones(()) if prescale is None else prescale.cpu()
    low = (stats.channel_min * factors).amin(dim=1, keepdim=True)  # (T, 1)
    high = (stats.channel_max * factors).amax(dim=1, keepdim=True)  # (T, 1)
    values = torch.cat([(stats.rows * factors).flatten(1), low, high], dim=1)  # (T, R * C_in + 2)
    q = search_range_tensor(values, bits, grid="affine", exponent=exponent)
    return q.scale, q.zero_point


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the submodule `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _quantized(
    network: nn.Module,
    spec: LayerSpec,
    bits: Tensor | None,
    calibration: Calibration,
    settings: QuantSettings,
    clock: TimestepClock,
    freeze: bool,
) -> QuantLayer:
    layer = network.get_submodule(spec.name)
    prepared = prepare_layer(layer, spec, calibration.layers[spec.name], settings, clock)
    if bits is None:
        bits = torch.full((spec.out_channels,), EXEMPT_BITS)
    params = fit_weight(prepared.weight, bits, grid=settings.grid, exponent=settings.range_exponent)
    twin = quantized_twin(layer, params, prepared.activation)
    twin.train(layer.training)
    if freeze:
        twin.freeze_()
    return twin


def _copy_without(network: nn.Module, names: list[str]) -> nn.Module:
    """Deep copy, except that the named layers keep the original's weights: they are about to be replaced."""
    kept = [tensor for name in names for tensor in network.get_submodule(name).parameters()]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in kept}
    return copy.deepcopy(network, memo)


__all__ = [
    "EXEMPT_BITS",
    "BitReport",
    "PreparedLayer",
    "QuantSettings",
    "QuantizedDenoiser",
    "activation_ranges",
    "check_match",
    "is_quantized",
    "layer_prescale",
    "prepare_layer",
    "quantize",
    "replace_module",
]
