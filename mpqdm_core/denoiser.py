"""A loaded diffusion model as the rest of the library sees it: a network, its layers, and how it is sampled.

Layers are listed in the order in which the network runs them, found by hooks during one forward pass of one
sample, so that nothing here knows the structure of a particular network.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mpqdm_core.errors import SettingsError

Exemption = Literal["8-bit", "full precision"]

PIPELINE_NOTES = ("class_names", "guidance_scale")
"""Entries of `model_index.json` that are no components."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptRule:
    """Keeps the layers whose dotted name matches `pattern` (shell wildcards) out of the bit budget."""

    pattern: str
    exempt: Exemption
    reason: str
    input_headroom: float = 1.0  # how far beyond the calibrated input range the 8 bits reach


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One linear or convolution layer of a network."""

    name: str
    kind: Literal["linear", "conv"]
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...]  # (kh, kw) for a convolution, () for a linear layer
    groups: int
    weights_per_channel: int  # elements of one output channel of the weight
    parameters: int  # weight and bias
    macs: int  # multiply-accumulates of one forward pass of one sample; classifier-free guidance takes two
    exempt: Exemption | None
    reason: str  # why it is exempt; empty if it is not
    input_headroom: float = 1.0  # factor on its calibrated input range, when its inputs are quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSettings:
    """How pictures are drawn: steps, classifier-free guidance, and the share of fresh noise."""

    num_inference_steps: int = 20
    guidance_scale: float = 3.0  # 1.0 is no guidance, the only value for a model without classes
    eta: float = 0.0  # 0 is deterministic DDIM, 1 is as noisy as DDPM

    def __post_init__(self) -> None:
        """Refuse what no sampler can do.

        Raises:
            SettingsError: a value is outside its range.
        """
        steps, guidance = self.num_inference_steps, self.guidance_scale
        if not isinstance(steps, int) or steps < 1:
            raise SettingsError(f"num_inference_steps must be a whole number from 1 up, got {steps!r}")
        if not (math.isfinite(guidance) and guidance >= 0):
            raise SettingsError(f"guidance_scale must be a finite number from 0 up, got {guidance!r}")
        if not 0.0 <= self.eta <= 1.0:
            raise SettingsError(f"eta must be in [0, 1], got {self.eta!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """A diffusion model, ready to sample and analyse. Callers share it: nobody changes its weights."""

    name: str
    family: str  # a key of families.FAMILIES
    pipeline: Any  # the diffusers pipeline that samples it
    network: nn.Module  # predicts the noise; the pipeline holds the same object
    layers: tuple[LayerSpec, ...]  # in running order, exempt ones included
    sampler: SamplerSettings = field(
        default_factory=SamplerSettings
    )  # the settings its card was measured with
    num_classes: int | None  # None: unconditional
    class_names: tuple[str, ...]  # empty: unconditional
    content_hash: str  # of the network's weights and the noise schedule
    source: str  # the bundled name or the folder
    latents: tuple[int, int, int] | None = None  # (C, h, w), where the network's config does not say it

    @property
    def quantizable_layers(self) -> tuple[LayerSpec, ...]:
        """The layers that share the bit budget."""
        return tuple(layer for layer in self.layers if layer.exempt is None)

    @property
    def exempt_layers(self) -> tuple[LayerSpec, ...]:
        """The layers that a bit budget does not touch."""
        return tuple(layer for layer in self.layers if layer.exempt is not None)

    @property
    def parameters(self) -> int:
        """Parameters of the full-precision network, norms and embeddings included.

        Layers count as listed: quantized and packed ones hold other tensors than they had.
        """
        inside = tuple(f"{layer.name}." for layer in self.layers)
        own = self.network.named_parameters()
        others = sum(tensor.numel() for name, tensor in own if not name.startswith(inside))
        return others + sum(layer.parameters for layer in self.layers)

    @property
    def component(self) -> str:
        """Name of the network among the pipeline's parts: "unet" or "transformer"."""
        name: str = next(name for name, part in self.pipeline.components.items() if part is self.network)
        return name

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of what the network denoises; for a pixel-space model, of the picture."""
        if self.latents is not None:
            return self.latents
        config: Any = self.network.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(config.in_channels), int(height), int(width)

    def layer(self, name: str) -> LayerSpec:
        """The layer of this name.

        Raises:
            SettingsError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise SettingsError(f"{self.name} has no layer {name!r}; its first is {self.layers[0].name!r}")

    def to(self, device: torch.device | str) -> Denoiser:
        """The same model on another device: a copy, since callers share it; itself where it is there already.

        Raises:
            SettingsError: there is no such device here.
        """
        try:
            wanted = torch.device(device)
            if next(self.network.parameters()).device == wanted:
                return self
            pipeline = copy.deepcopy(self.pipeline).to(wanted)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(f"nothing can be computed on {str(device)!r} here: {reason}") from error
        return replace(self, pipeline=pipeline, network=pipeline.components[self.component])

    def with_network(self, network: nn.Module, *, content_hash: str | None = None) -> Denoiser:
        """The same model with another network in its pipeline; VAE and schedule are shared.

        Args:
            network: takes and returns what the present one does, and has its `config` and `dtype`.
            content_hash: of the new network, if it is known more cheaply than by reading all weights.
        """
        pipeline = rebuild_pipeline(self.pipeline, **{self.component: network})
        new_hash = content_hash or hash_network(network, self.pipeline.scheduler)
        return replace(self, pipeline=pipeline, network=network, content_hash=new_hash)


def rebuild_pipeline(pipeline: Any, **components: Any) -> Any:
    """A new pipeline of the same class and the same parts, except the given ones; progress bars off."""
    taken = inspect.signature(type(pipeline).__init__).parameters
    settings = {k: v for k, v in pipeline.config.items() if k in taken and k not in pipeline.components}
    rebuilt = type(pipeline)(**{**pipeline.components, **settings, **components})
    rebuilt.set_progress_bar_config(disable=True)
    return rebuilt


def hash_network(network: nn.Module, scheduler: Any) -> str:
    """Hash of a network's weights, buffers and configuration and of the noise schedule: 64 hex digits."""
    digest = hashlib.sha256()
    parts: tuple[Any, ...] = (network, scheduler)
    for part in parts:
        # A schedule made from another class's settings carries those it has no use for: they must not count.
        understood = inspect.signature(type(part).__init__).parameters
        used = {key: value for key, value in part.config.items() if key in understood}
        digest.update(json.dumps(used, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_layers(
    network: nn.Module, inputs: dict[str, Tensor], rules: Sequence[ExemptRule]
) -> tuple[LayerSpec, ...]:
    """List the linear and convolution layers of a network in the order in which it runs them.

    Embeddings (class labels) and norms are no such layers and are not listed: they stay in full precision. A
    layer that the forward pass never reaches comes last, exempt, since nothing can be measured for it.

    Args:
        network: one forward pass is made, without gradients; weights stay as they are.
        inputs: arguments for that pass, one sample.
        rules: the first that matches a layer's name exempts it.
    """
    modules = {name: module for name, module in network.named_modules() if _is_layer(module)}
    macs: dict[str, int] = {}

    def count(name: str, output: Tensor) -> None:
        per_position = modules[name].weight[0].numel()  # multiplications behind one output number
        macs[name] = macs.get(name, 0) + output.numel() * per_position

    handles = [
        module.register_forward_hook(lambda _module, _args, output, name=name: count(name, output))
        for name, module in modules.items()
    ]
    try:
        with torch.no_grad():
            network(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    order = [*macs, *(name for name in modules if name not in macs)]
    return tuple(_spec(name, modules[name], macs.get(name, 0), rules) for name in order)


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _spec(name: str, module: Any, macs: int, rules: Sequence[ExemptRule]) -> LayerSpec:
    conv = isinstance(module, nn.Conv2d)
    rule = next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)
    if rule is None and macs == 0:
        rule = ExemptRule(pattern=name, exempt="full precision", reason="the forward pass never reaches it")
    return LayerSpec(
        name=name,
        kind="conv" if conv else "linear",
        out_channels=module.weight.shape[0],
        in_channels=module.in_channels if conv else module.in_features,
        kernel=tuple(module.weight.shape[2:]),
        groups=module.groups if conv else 1,
        weights_per_channel=module.weight[0].numel(),
        parameters=sum(parameter.numel() for parameter in module.parameters(recurse=False)),
        macs=macs,
        exempt=None if rule is None else rule.exempt,
        reason="" if rule is None else rule.reason,
        input_headroom=1.0 if rule is None else rule.input_headroom,
    )
