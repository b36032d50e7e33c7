"""Measuring the error table: what every bit-width of every channel costs at the layer's output.

The recorded inputs are given to the full-precision network once more; at each layer, a sample of positions is
multiplied with the full-precision weight and with all eight rounded weights at once, the input going through
the deployed input quantizer. Products are float32, sums over rows float64. Memory is bounded: layers are
taken in groups whose stacked weights fit, and no activation outlives its layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpqdm_core.activations import TimestepClock
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser, LayerSpec
from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.errors import SettingsError
from mpqdm_core.kurtosis import channel_kurtosis
from mpqdm_core.measured_layers import LayerSums, MeasuredLayers
from mpqdm_core.patches import input_patches
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import PreparedLayer, check_match, prepare_layer
from mpqdm_core.recording import hooks, memory_errors, replica, spread
from mpqdm_core.weights import fit_weight, round_weight

MAX_STACK_BYTES = 512 * 2**20  # rounded weights held at one moment


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """Rows of the table's means: images x timesteps x positions of each layer's output."""

    images_per_step: int = 16  # recorded inputs of each timestep that are given again
    positions: int = 16  # output positions (pixels or tokens) of each image
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse counts below one.

        Raises:
            SettingsError: a value is outside its range.
        """
        for name in ("images_per_step", "positions"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)!r}")


class _Accumulator:
    """One layer's sums over rows."""

    def __init__(
        self, layer: nn.Module, spec: LayerSpec, prepared: PreparedLayer, settings: QuantSettings
    ) -> None:
        self.spec = spec
        self.activation = prepared.activation
        weight = prepared.weight
        self.kurtosis = channel_kurtosis(weight).cpu().numpy()
        stack = weight.expand(len(BITS), *weight.shape).flatten(
            0, 1
        )  # (8 * O, ...): one search for all widths
        bits = torch.tensor(BITS).repeat_interleave(spec.out_channels)
        params = fit_weight(stack, bits, grid=settings.grid, exponent=settings.range_exponent)
        rounded = round_weight(stack, params).view(len(BITS), *weight.shape)
        self.rounded = _by_group(rounded, spec.groups)  # (g, K, 8 * O/g)
        reference = layer.get_parameter("weight").detach().float().unsqueeze(0)
        self.reference = _by_group(reference, spec.groups)  # (g, K, O/g)
        self.error = torch.zeros(len(BITS), spec.out_channels, dtype=torch.float64)
        self.energy = torch.zeros(spec.out_channels, dtype=torch.float64)
        self.rows = 0

    def add(self, layer: nn.Module, x: Tensor, positions: int, generator: torch.Generator) -> None:
        """Take in a layer's input at the running timestep."""
        rounded = self.activation(x)
        patches, rounded_patches = input_patches(layer, (x, rounded), positions, generator)  # (g, R, K) each
        y = torch.bmm(patches, self.reference)  # (g, R, O/g)
        y_rounded = torch.unflatten(
            torch.bmm(rounded_patches, self.rounded), 2, (len(BITS), -1)
        )  # (g, R, 8, O/g)
        squared = y_rounded.sub_(y.unsqueeze(2)).square_().sum(dim=1, dtype=torch.float64)  # (g, 8, O/g)
        self.error += squared.movedim(0, 1).flatten(1).cpu()
        self.energy += y.square().sum(dim=1, dtype=torch.float64).flatten().cpu()
        self.rows += patches.shape[1]

    def sums(self) -> LayerSums:
        """What was added up, without the weights that it took."""
        error, energy = self.error.numpy(), self.energy.numpy()
        return LayerSums(error=error, energy=energy, kurtosis=self.kurtosis, rows=self.rows)


def measure_error_table(
    denoiser: Denoiser,
    calibration: Calibration,
    settings: QuantSettings | None = None,
    report: Report = silent,
    *,
    rows: RowSettings | None = None,
    sensitivity: Mapping[str, Tensor] | None = None,
    checkpoint: str | Path | None = None,
) -> ErrorTable:
    """Measure every quantizable layer with the deployed quantizers, on full-precision layer inputs.

    Args:
        denoiser: full precision; it is not touched.
        calibration: taken from it.
        settings: grids, searches, pre-scaling and input bits, as they will be deployed.
        report: told every layer prepared and every timestep replayed; may raise `Cancelled`.
        rows: how much is averaged over.
        sensitivity: of every quantizable layer, from `channel_sensitivity`; kept in the table.
        checkpoint: file that keeps the layers measured so far; if it is there, the measurement goes on from
            it. It is deleted when the table is complete.

    Raises:
        DataError: the calibration belongs to another model, or the checkpoint to another measurement.
        LoadError: the checkpoint is damaged.
        SettingsError: memory ran out.
        Cancelled: raised by `report`.
    """
    settings, rows = settings or QuantSettings(), rows or RowSettings()
    check_match(denoiser, calibration)
    network = replica(denoiser.network)
    specs = denoiser.quantizable_layers
    groups = list(_memory_groups(specs))
    total = len(specs) + len(groups) * len(calibration.timesteps)
    done = 0

    def advance(text: str) -> None:
        nonlocal done
        report(done, total, text)
        done += 1

    kept = MeasuredLayers(checkpoint, _fingerprint(denoiser, calibration, settings, rows))
    with torch.no_grad(), memory_errors("measure with fewer images per step"):
        for group in groups:
            if all(spec.name in kept for spec in group):
                done += len(group) + len(calibration.timesteps)
            else:
                kept.add(_measure_group(network, group, calibration, settings, rows, advance))
    measured = [kept[spec.name] for spec in specs]
    kept.finish()
    report(total, total, "error table measured")
    lambdas = (
        None
        if sensitivity is None
        else torch.cat([sensitivity[s.name].double().cpu() for s in specs]).numpy()
    )
    return ErrorTable(
        layer_names=tuple(spec.name for spec in specs),
        layer_start=np.cumsum([0, *(spec.out_channels for spec in specs)]),
        weights_per_channel=np.array([spec.weights_per_channel for spec in specs]),
        error=np.concatenate([(layer.error / layer.rows).T for layer in measured]).astype(np.float32),
        energy=np.concatenate([layer.energy / layer.rows for layer in measured]).astype(np.float32),
        kurtosis=np.concatenate([layer.kurtosis for layer in measured]).astype(np.float32),
        sensitivity=None if lambdas is None else lambdas.astype(np.float32),
        settings={
            **settings.as_dict(),
            "images_per_step": rows.images_per_step,
            "positions": rows.positions,
            "row_seed": rows.seed,
            "timesteps": len(calibration.timesteps),
            "calibration_hash": calibration.content_hash,
            "model_hash": denoiser.content_hash,
        },
    )


def _measure_group(
    network: nn.Module,
    specs: list[LayerSpec],
    calibration: Calibration,
    settings: QuantSettings,
    rows: RowSettings,
    advance: Callable[[str], None],
) -> dict[str, LayerSums]:
    """Prepare some layers, give the network its inputs again, and return their sums by name."""
    clock = TimestepClock(calibration.timesteps)
    accumulators = []
    for spec in specs:
        advance(f"rounding {spec.name} at 1 to 8 bits")
        layer = network.get_submodule(spec.name)
        prepared = prepare_layer(layer, spec, calibration.layers[spec.name], settings, clock)
        prepared.activation.freeze_()
        accumulators.append(_Accumulator(layer, spec, prepared, settings))
    generator = torch.Generator().manual_seed(rows.seed)
    inputs = calibration.inputs
    device = next(network.parameters()).device
    with hooks(clock.attach(network)) as held:
        for accumulator in accumulators:
            layer = network.get_submodule(accumulator.spec.name)
            held.append(layer.register_forward_pre_hook(_listener(accumulator, rows.positions, generator)))
        for slot, timestep in enumerate(inputs.timesteps):
            advance(f"measuring {len(specs)} layers at timestep {timestep}")
            index = spread(inputs.samples_per_step, rows.images_per_step, generator)
            network(**inputs.arguments(slot, index, device))
    return {accumulator.spec.name: accumulator.sums() for accumulator in accumulators}


def _fingerprint(
    denoiser: Denoiser, calibration: Calibration, settings: QuantSettings, rows: RowSettings
) -> str:
    parts = [
        denoiser.content_hash,
        calibration.content_hash,
        settings.as_dict(),
        asdict(rows),
        MAX_STACK_BYTES,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _listener(
    accumulator: _Accumulator, positions: int, generator: torch.Generator
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def on_forward(layer: nn.Module, args: tuple[Any, ...]) -> None:
        accumulator.add(layer, args[0].float(), positions, generator)

    return on_forward


def _memory_groups(specs: tuple[LayerSpec, ...]) -> Iterator[list[LayerSpec]]:
    """Split the layers into runs whose rounded weights fit into MAX_STACK_BYTES."""
    group: list[LayerSpec] = []
    size = 0
    for spec in specs:
        layer_bytes = (len(BITS) + 1) * 4 * spec.out_channels * spec.weights_per_channel
        if group and size + layer_bytes > MAX_STACK_BYTES:
            yield group
            group, size = [], 0
        group.append(spec)
        size += layer_bytes
    if group:
        yield group


def _by_group(weights: Tensor, groups: int) -> Tensor:
    """Bring n weights (n, O, I/g, ...) into the shape of one product for each group: (g, K, n * O/g)."""
    flat = torch.unflatten(weights.flatten(2), 1, (groups, -1))  # (n, g, O/g, K)
    return flat.permute(1, 3, 0, 2).flatten(2).contiguous()
