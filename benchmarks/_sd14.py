"""A quantized model of Stable Diffusion v1.4's layer shapes with random weights; it draws no pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from benchmarks.kurtosis import Shape
from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.affine import choose_qparams_minmax
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.bit_report import report_bits
from mpqdm_core.denoiser import Denoiser, LayerSpec
from mpqdm_core.layers import QuantLayer, quantized_twin
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import WeightParams

STEPS = 20
WEIGHT_SCALE = 0.02
WIDTHS = (1, 2, 3)  # drawn evenly: 2 bits on average
INPUT_BITS = 8


class ManyLayers(ModelMixin, ConfigMixin):
    """Linear layers and convolutions side by side; a call runs each once, on the smallest input it takes."""

    @register_to_config
    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        """Make one layer of every shape, without bias."""
        super().__init__()
        self.layers = nn.ModuleList(full_precision(tuple(shape)) for shape in shapes)
        self.norm = nn.LayerNorm(1)  # a parameter beside the layers, from which the network's type is read

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Run all layers; the result is the sum of their largest values."""
        total = sample.new_zeros(())
        for layer, shape in zip(self.layers, self.config.shapes, strict=True):
            x = sample.new_ones(1, *shape[1:])
            total = total + layer(x).amax()
        return total


def full_precision(shape: Shape) -> nn.Linear | nn.Conv2d:
    """A layer of this weight shape without contents."""
    with torch.device("meta"):
        if len(shape) == 2:
            return nn.Linear(shape[1], shape[0], bias=False)
        return nn.Conv2d(shape[1], shape[0], tuple(shape[2:]), bias=False)


def quantized_model(shapes: Sequence[Shape], seed: int) -> QuantizedDenoiser:
    """Round random weights of these shapes to 2 bits on average: every channel to 1, 2 or 3, mid-rise."""
    generator = torch.Generator().manual_seed(seed)
    clock = TimestepClock(range(STEPS))
    network = ManyLayers([list(shape) for shape in shapes])
    bits = [torch.tensor(WIDTHS)[torch.randint(3, (shape[0],), generator=generator)] for shape in shapes]
    for index, shape in enumerate(shapes):
        network.layers[index] = _layer(shape, bits[index], clock, generator)
    clock.attach(network)
    specs = tuple(_spec(f"layers.{index}", shape) for index, shape in enumerate(shapes))
    uniform = BitPlan.uniform(
        [spec.name for spec in specs],
        [spec.out_channels for spec in specs],
        [spec.weights_per_channel for spec in specs],
        2,
    )
    plan = BitPlan(
        layer_names=uniform.layer_names,
        layer_start=uniform.layer_start,
        weights_per_channel=uniform.weights_per_channel,
        bits=torch.cat(bits).numpy().astype(np.int8),
        settings=uniform.settings,
    )
    denoiser = Denoiser(
        name="sd14-shapes",
        family="ddpm",
        pipeline=SimpleNamespace(components={"unet": network}, save_config=lambda folder: None),
        network=network.eval().requires_grad_(False),
        layers=specs,
        num_classes=None,
        class_names=(),
        content_hash="0" * 64,
        source="random weights",
    )
    settings = QuantSettings(activation_bits=INPUT_BITS)
    return QuantizedDenoiser(
        denoiser=denoiser,
        plan=plan,
        settings=settings,
        bit_report=report_bits(denoiser, plan, settings, timesteps=STEPS),
        source_hash="0" * 64,
        calibration_hash="0" * 64,
    )


def _layer(shape: Shape, bits: Tensor, clock: TimestepClock, generator: torch.Generator) -> QuantLayer:
    layer = full_precision(shape)
    layer.weight = nn.Parameter(torch.randn(shape, generator=generator).mul_(WEIGHT_SCALE))
    flat = layer.weight.detach().flatten(1)
    q = choose_qparams_minmax(flat.amin(dim=1), flat.amax(dim=1), bits, "mid-rise")
    params = WeightParams(
        scale=q.scale, zero_point=q.zero_point, bits=bits, mid_rise=torch.ones(len(bits), dtype=torch.bool)
    )
    activation = ActivationQuantizer(
        channel_axis=1 if len(shape) == 4 else -1,
        prescale=torch.linspace(0.5, 1.5, shape[1]),
        bits=INPUT_BITS,
        scale=torch.linspace(0.01, 0.02, STEPS),
        zero_point=torch.full((STEPS,), 100.0),
        clock=clock,
    )
    twin = quantized_twin(layer, params, activation)
    twin.weight = layer.weight  # `quantized_twin` copied it; freezing replaces it
    with torch.no_grad():
        twin.freeze_()
    return twin


def _spec(name: str, shape: Shape) -> LayerSpec:
    return LayerSpec(
        name=name,
        kind="linear" if len(shape) == 2 else "conv",
        out_channels=shape[0],
        in_channels=shape[1],
        kernel=tuple(shape[2:]),
        groups=1,
        weights_per_channel=math.prod(shape[1:]),
        parameters=math.prod(shape),
        macs=math.prod(shape),
        exempt=None,
        reason="",
    )
