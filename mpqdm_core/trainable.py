"""Which tensors of a quantized network are trained, how fast, and within which limits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.layers import QuantLayer
from mpqdm_core.lora import LowRank
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.schedules import step_factors
from mpqdm_core.slot_table import SlotTable
from mpqdm_core.teacher import TeacherRecord
from mpqdm_core.weights import prescaled_weight, round_weight

SMALLEST_SHARE = 1e-2  # of its first value: a scale never goes below


def trained_layers(student: QuantizedDenoiser) -> dict[str, QuantLayer]:
    """The layers of the bit plan; exempt ones stay as they were calibrated."""
    layers = student.layers
    return {name: layers[name] for name in student.plan.layer_names}


def make_trainable(layers: Mapping[str, QuantLayer], settings: FinetuneSettings) -> None:
    """Attach low-rank corrections and let the scales take gradients; the same for the same seed."""
    state = torch.get_rng_state()
    try:
        torch.manual_seed(settings.seed)
        for layer in layers.values():
            if settings.rank is not None:
                low_rank = LowRank(layer.weight.shape, settings.rank, settings.conv_factors)
                layer.low_rank = low_rank.to(layer.weight.device)
                if settings.start == "error":
                    _start_at_error(layer, low_rank)
            layer.weight_scale.requires_grad_(True)
            layer.weight_zero_point.requires_grad_(bool((~layer.mid_rise).any()))
            if layer.bias is not None:
                layer.bias.requires_grad_(settings.bias_rate > 0)
    finally:
        torch.set_rng_state(state)


def parameter_groups(
    layers: Mapping[str, QuantLayer], slots: SlotTable | None, settings: FinetuneSettings
) -> list[dict[str, Any]]:
    """Groups for an optimiser, with their learning rate at the start under "rate"; no weight decay.

    The corrections of a layer move in proportion to its own mean weight scale, as EfficientDM and MPQ-DM do;
    the mean is over the layer's channels, each once. That scale is one of the pre-scaled weight, while the
    corrections are added to the weight before it; without `prescaled_rates` it is brought back to that, so
    that pre-scaling does not change how many levels a step moves a weight.
    """
    groups: list[dict[str, Any]] = []
    for layer in layers.values():
        mean_scale = float(layer.weight_scale.detach().mean())
        factor = 1.0 if settings.prescaled_rates else mean_prescale(layer.activation)
        unit = mean_scale if settings.relative_rates else 1 / factor
        if layer.low_rank is not None:
            rate = settings.low_rank_rate * mean_scale * factor
            groups.append({"params": list(layer.low_rank.parameters()), "rate": rate})
        groups.append({"params": [layer.weight_scale], "rate": settings.weight_scale_rate * unit})
        if layer.bias is not None and layer.bias.requires_grad:
            groups.append({"params": [layer.bias], "rate": settings.bias_rate})
        if layer.weight_zero_point.requires_grad:
            groups.append({"params": [layer.weight_zero_point], "rate": settings.weight_zero_point_rate})
    if slots is not None:
        groups.append({"params": slots.rows, "rate": settings.activation_rate})
    return groups


def mean_prescale(quantizer: ActivationQuantizer) -> float:
    """Mean factor an input is multiplied with, and a weight divided by, before rounding; 1 without any."""
    return 1.0 if quantizer.prescale is None else float(quantizer.prescale.mean())


def trained_tensors(layers: Mapping[str, QuantLayer]) -> dict[str, Tensor]:
    """Everything that training changes, by "layer/name"."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{name}/weight_scale"] = layer.weight_scale
        tensors[f"{name}/weight_zero_point"] = layer.weight_zero_point
        if layer.bias is not None and layer.bias.requires_grad:
            tensors[f"{name}/bias"] = layer.bias
        if layer.low_rank is not None:
            tensors[f"{name}/low_rank_a"] = layer.low_rank.a
            tensors[f"{name}/low_rank_b"] = layer.low_rank.b
        if layer.activation.scale is not None and layer.activation.zero_point is not None:
            tensors[f"{name}/activation_scale"] = layer.activation.scale
            tensors[f"{name}/activation_zero_point"] = layer.activation.zero_point
    return tensors


def trained_biases(layers: Mapping[str, QuantLayer]) -> list[Tensor]:
    """The biases that take gradients."""
    return [layer.bias for layer in layers.values() if layer.bias is not None and layer.bias.requires_grad]


@contextmanager
def held_weights(layers: Mapping[str, QuantLayer]) -> Iterator[None]:
    """Round every weight once for all calls inside."""
    for layer in layers.values():
        layer.held = layer.quantized_weight()
    try:
        yield
    finally:
        for layer in layers.values():
            layer.held = None


def hold_exempt(student: QuantizedDenoiser) -> None:
    """Round the weights of exempt layers, which training does not change, once for good."""
    trained = trained_layers(student)
    with torch.no_grad():
        for name, layer in student.layers.items():
            if name not in trained:
                layer.held = layer.quantized_weight()


@contextmanager
def rounded_leaves(layers: Mapping[str, QuantLayer]) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Round every weight once with its graph, and let calls inside use a leaf of the same value.

    Gradients at the leaves, from any number of calls and threads, can then be sent through the rounding once.
    """
    with torch.enable_grad():
        rounded = {name: layer.quantized_weight() for name, layer in layers.items()}
    leaves = {name: weight.detach().requires_grad_(True) for name, weight in rounded.items()}
    for name, layer in layers.items():
        layer.held = leaves[name]
    try:
        yield rounded, leaves
    finally:
        for layer in layers.values():
            layer.held = None


class ScaleGuard:
    """Keeps every scale at a hundredth of its first value at least: none collapses or changes sign."""

    def __init__(self, layers: Mapping[str, QuantLayer], slots: SlotTable | None) -> None:
        """Remember where the scales start."""
        self._weights = {
            name: (layer.weight_scale, layer.weight_scale.detach() * SMALLEST_SHARE)
            for name, layer in layers.items()
        }
        self._slots = slots
        columns = [] if slots is None else slots.columns[::2]
        self._inputs = torch.stack([c.detach().amin() * SMALLEST_SHARE for c in columns]) if columns else None

    def ratios(self) -> dict[str, float]:
        """Mean weight scale of each layer over its mean at the start."""
        return {
            name: float(scale.detach().mean() / floor.mean()) * SMALLEST_SHARE
            for name, (scale, floor) in self._weights.items()
        }

    @torch.no_grad()
    def apply(self) -> None:
        """Lift what fell below."""
        for scale, floor in self._weights.values():
            torch.maximum(scale, floor, out=scale)
        if self._slots is not None and self._inputs is not None:
            self._slots.keep_in_range(self._inputs)


def step_weights(denoiser: Denoiser, record: TeacherRecord, settings: FinetuneSettings) -> Tensor:
    """(T,) factor of the task loss at each timestep, with mean 1.

    "sampler": the square of the factor with which a prediction's error enters the next latent, see
    `schedules.step_factors`.
    """
    count = len(record.timesteps)
    if settings.step_weights == "equal":
        return torch.ones(count)
    weights = step_factors(denoiser.pipeline.scheduler, record.timesteps).square()
    relative: Tensor = (weights / weights.mean()).float()
    return relative


def workers_for(network: nn.Module, shares: int) -> int:
    """How many shares of a batch are worked on at once: one per core, and one on an accelerator."""
    if next(network.parameters()).device.type != "cpu":
        return 1
    return max(1, min(shares, os.cpu_count() or 1))


def _start_at_error(layer: QuantLayer, low_rank: LowRank) -> None:
    """Start at minus the largest part of the rounding error: what is rounded starts nearer to its levels.

    The rounded weight stays nearly the same, and both factors have gradients from the first step.
    """
    with torch.no_grad():
        params = layer.weight_params
        prescale = layer.activation.prescale
        prescaled = prescaled_weight(layer.weight, prescale, layer.groups)
        error = prescaled - round_weight(prescaled, params)
        inverse = None if prescale is None else 1 / prescale
        low_rank.fit_(-prescaled_weight(error, inverse, layer.groups))
