"""Putting packed layers into a network, and getting loaded ones ready for use."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import LoadError
from mpqdm_core.packing.manifest import Manifest, PackedSpec, plan_matches
from mpqdm_core.packing.packed_layers import Mode, PackedConv2d, PackedLayer, PackedLinear
from mpqdm_core.packing.packed_weight import PackedWeight
from mpqdm_core.packing.tensors import byte_parts, scale_parts
from mpqdm_core.packing.unpack_cache import DEFAULT_CACHE_MIB, UnpackCache
from mpqdm_core.quantization import replace_module
from mpqdm_core.timestep_clock import TimestepClock


def put_packed_layers_(network: nn.Module, manifest: Manifest, *, cache_mib: int = DEFAULT_CACHE_MIB) -> None:
    """Replace layers by packed ones without contents, and let the network's calls set the timestep.

    Args:
        network: as its configuration describes it; changed in place.
        manifest: says which layers, and how they are stored.
        cache_mib: limit of the cache of unpacked weights.

    Raises:
        LoadError: the network has no such layer.
    """
    cache = UnpackCache(cache_mib)
    clock = TimestepClock(manifest.timesteps) if manifest.timesteps else None
    for name, spec in manifest.packed.items():
        try:
            layer: Any = network.get_submodule(name)
        except AttributeError as error:
            raise LoadError(
                f"the manifest packs a layer {name}, which the network does not have: "
                "config.json and weights must come from one model"
            ) from error
        found = list(layer.weight.shape) if isinstance(layer, nn.Linear | nn.Conv2d) else []
        if found != list(spec.layout.shape) or (layer.bias is not None) != spec.bias:
            raise LoadError(
                f"the manifest packs {name} of shape {list(spec.layout.shape)}, the network has {found}: "
                "config.json and weights must come from one model"
            )
        replace_module(network, name, _empty_layer(name, layer, spec, manifest, clock, cache))
    if clock is not None:
        clock.attach(network)


def finish_(network: nn.Module, manifest: Manifest, source: str) -> None:
    """Prepare loaded layers for use.

    Raises:
        LoadError: the bits of a layer are not those of the plan.
    """
    quantizable = {layer.name for layer in manifest.layers if layer.exempt is None}
    for name, layer in packed_layers(network).items():
        if layer.weight_packed.is_meta or layer.weight_scale.is_meta:
            raise LoadError(f"{source} misses the weight of {name}; export the model again")
        try:
            bits = layer.bits
        except ValueError as error:  # the library's errors of shapes and settings
            raise LoadError(f"{name} in {source} is damaged: {error}") from error
        if name in quantizable and not plan_matches(manifest.plan, name, bits):
            raise LoadError(
                f"the bits of {name} in {source} are not those of its plan; export the model again"
            )
        layer.activation.freeze_()


def packed_layers(network: nn.Module) -> dict[str, PackedLayer]:
    """The packed layers of a network by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, PackedLayer)}


def set_mode(network: nn.Module, mode: Mode, dtype: torch.dtype = torch.float32) -> None:
    """Keep the weights of all packed layers packed, or unpacked beside the packed ones for speed.

    Args:
        network: with packed layers.
        mode: `packed` or `frozen`.
        dtype: that weights are unpacked to; float32 gives the results of the exported model.

    Raises:
        SettingsError: there is no such mode.
    """
    for layer in packed_layers(network).values():
        layer.set_mode(mode, dtype)


def use_kernels(network: nn.Module, enabled: bool) -> None:
    """Multiply with packed weights by Triton's kernels on CUDA, as is the default, or unpack them there too.

    Unpacked weights give the results of the exported model on that device; the kernels differ by rounding.

    Args:
        network: with packed layers.
        enabled: where tensors are not on CUDA, or Triton is not installed, weights are unpacked either way.
    """
    for layer in packed_layers(network).values():
        layer.kernels = enabled


def _empty_layer(
    name: str,
    layer: Any,
    spec: PackedSpec,
    manifest: Manifest,
    clock: TimestepClock | None,
    cache: UnpackCache,
) -> PackedLayer:
    """A packed layer whose tensors have the right shapes and no contents."""
    device = layer.weight.device
    numbers = {part: torch.empty(size, device=device) for part, size in scale_parts(name, manifest).items()}
    codes = {
        part: torch.empty(size, dtype=torch.uint8, device=device)
        for part, size in byte_parts(name, manifest).items()
    }
    nothing = torch.empty(0, dtype=torch.uint8, device=device)
    input_scale = numbers.get("activation.scale")
    conv = isinstance(layer, nn.Conv2d)
    activation = ActivationQuantizer(
        channel_axis=1 if conv else -1,
        prescale=numbers.get("activation.prescale"),
        bits=spec.activation_bits,
        scale=input_scale,
        zero_point=None if input_scale is None else torch.empty_like(input_scale),
        clock=clock,
    )
    weight = PackedWeight(
        layout=spec.layout,
        codes=codes["weight_packed"],
        channel_map=codes.get("weight_map", nothing),
        zero_points=codes.get("weight_zero", nothing),
        scale=numbers["weight_scale"],
    )
    kind = PackedConv2d if conv else PackedLinear
    packed = kind(layer, weight, activation, cache)
    packed.train(layer.training)
    return packed
