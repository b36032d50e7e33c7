"""How much each output channel moves the network's prediction: a few backward passes, no labels.

lambda_o = mean over samples of the sum over positions of ||d eps / d y_o||**2, with the squared norm over all
of eps. For random signs v, E[(v . J)**2] = ||J||**2, so one backward pass of v . eps gives an unbiased
estimate for all channels at once. Times a channel's mean squared error it is, to first order and for errors
that do not conspire, the squared error of eps: the one currency in which layers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.progress import Report, silent
from mpqdm_core.quantization import check_match
from mpqdm_core.recording import memory_errors, output_tensor, replica, spread


def channel_sensitivity(
    denoiser: Denoiser,
    calibration: Calibration,
    probes: int = 1,
    report: Report = silent,
    *,
    images_per_step: int = 8,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Estimate the sensitivity of every quantizable layer's output channels.

    Args:
        denoiser: full precision; it is not touched.
        calibration: taken from it; its recorded inputs are given again.
        probes: random sign vectors, each with its own forward and backward pass at every timestep.
        report: told every backward pass; may raise `Cancelled`.
        images_per_step: recorded inputs of each timestep and probe.
        seed: of the probes and of the choice of inputs.

    Returns:
        for each layer (C_out,) float64, at least 0, in units of squared prediction per squared layer output.

    Raises:
        SettingsError: `probes` or `images_per_step` below 1, or memory ran out.
        DataError: the calibration belongs to another model, or a gradient is not finite.
        Cancelled: raised by `report`.
    """
    if probes < 1 or images_per_step < 1:
        raise SettingsError(
            f"probes and images_per_step must be at least 1, got {probes} and {images_per_step}"
        )
    check_match(denoiser, calibration)
    network = replica(denoiser.network)
    specs = denoiser.quantizable_layers
    outputs: list[tuple[str, Tensor]] = []
    for spec in specs:
        network.get_submodule(spec.name).register_forward_hook(_keep_output(spec.name, outputs))
    sums = {spec.name: torch.zeros(spec.out_channels, dtype=torch.float64) for spec in specs}
    generator = torch.Generator().manual_seed(seed)
    inputs = calibration.inputs
    device = next(network.parameters()).device
    passes = [(slot, probe) for slot in range(len(inputs.timesteps)) for probe in range(probes)]
    samples = 0
    for done, (slot, _) in enumerate(passes):
        report(done, len(passes), f"sensitivity at timestep {inputs.timesteps[slot]}")
        index = spread(inputs.samples_per_step, images_per_step, generator)
        outputs.clear()
        with torch.enable_grad(), memory_errors("use fewer images per step"):
            prediction = output_tensor(network(**inputs.arguments(slot, index, device)))
            signs = torch.randint(0, 2, prediction.shape, generator=generator).to(prediction) * 2 - 1
            gradients = torch.autograd.grad(
                (prediction * signs).sum(), [output for _, output in outputs], allow_unused=True
            )
        for (name, _), gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:  # None: this output does not reach the prediction
                sums[name] += _per_channel(gradient, network.get_submodule(name))
        samples += len(index)
    outputs.clear()
    report(len(passes), len(passes), "sensitivity measured")
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise DataError(f"the gradient at layer {name} is not finite")
    return {name: total / samples for name, total in sums.items()}


def _keep_output(
    name: str, outputs: list[tuple[str, Tensor]]
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    """Return a hook that lists a layer's output, made a leaf where nothing before it asks for gradients."""

    def on_forward(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_(True)
        outputs.append((name, output))
        return output

    return on_forward


def _per_channel(gradient: Tensor, layer: nn.Module) -> Tensor:
    """Sum squares over samples and positions: (B, C, H, W) of a convolution or (..., C) -> (C,) float64."""
    squared = gradient.detach().square()
    rows = squared.movedim(1, -1) if isinstance(layer, nn.Conv2d) else squared
    return rows.flatten(0, -2).sum(dim=0, dtype=torch.float64).cpu()
