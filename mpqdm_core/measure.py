"""Measuring the error table: what every bit-width of every channel costs at the layer's output.

The recorded inputs are given to the full-precision network once more; at each layer, a sample of positions is
multiplied with the full-precision weight and with all eight rounded weights at once, the input going through
the deployed input quantizer. Products are float32, sums over rows float64. Memory is bounded: where the
rounded weights of all layers fit, one replay is enough and no activation outlives its layer; of a larger
model the sampled rows are kept instead, for as many layers as fit, and weights are rounded a few channels at
a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser, LayerSpec
from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.errors import SettingsError
from mpqdm_core.layer_errors import LayerErrors, joined_sums
from mpqdm_core.measured_layers import LayerSums, MeasuredLayers
from mpqdm_core.patches import input_patches
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import PreparedLayer, check_match, prepare_layer
from mpqdm_core.recording import hooks, memory_errors, replica, spread
from mpqdm_core.timestep_clock import TimestepClock

MAX_STACK_BYTES = 512 * 2**20  # rounded weights held at one moment
MAX_ROW_BYTES = 2**30  # sampled rows held at one moment, of a model whose rounded weights are too many
MAX_SLICE_BYTES = 128 * 2**20  # of those, rounded at once; the search takes several times as much
SEED_STRIDE = 1_000_003  # between the random numbers of two seeds, above any number of layers


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


def measure_error_table(
    denoiser: Denoiser,
    calibration: Calibration,
    settings: QuantSettings | None = None,
    report: Report = silent,
    *,
    rows: RowSettings | None = None,
    sensitivity: Mapping[str, Tensor] | None = None,
    effects: Mapping[str, Tensor] | None = None,
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
        effects: of every quantizable layer, from `layer_effects` with the same settings; kept in the table.
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
    whole = len(list(_split(specs, [_stack_bytes(spec) for spec in specs], MAX_STACK_BYTES))) == 1
    count = len(calibration.timesteps) * min(rows.images_per_step, calibration.inputs.samples_per_step)
    sizes = [_row_bytes(spec, count * rows.positions) for spec in specs]
    groups = [list(specs)] if whole else list(_split(specs, sizes, MAX_ROW_BYTES))
    total = len(specs) + len(groups) * len(calibration.timesteps)
    done = 0

    def advance(text: str) -> None:
        nonlocal done
        report(done, total, text)
        done += 1

    kept = MeasuredLayers(checkpoint, _fingerprint(denoiser, calibration, settings, rows))
    with torch.no_grad(), memory_errors("measure with fewer images per step"):
        places = {spec.name: place for place, spec in enumerate(specs)}
        work = _Measurement(network, calibration, settings, rows, advance)
        for group in groups:
            missing = [spec for spec in group if spec.name not in kept]
            done += len(group) - len(missing) + (0 if missing else len(calibration.timesteps))
            if missing and whole:
                kept.add(work.together(missing))
            elif missing:
                for sums in work.in_turn(missing, places):
                    kept.add(sums)
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
        layer_effect=None if effects is None else torch.stack([effects[s.name] for s in specs]).numpy(),
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


class _Measurement:
    """What all groups of layers have in common."""

    def __init__(
        self,
        network: nn.Module,
        calibration: Calibration,
        settings: QuantSettings,
        rows: RowSettings,
        advance: Callable[[str], None],
    ) -> None:
        self._network, self._calibration = network, calibration
        self._settings, self._rows, self._advance = settings, rows, advance
        self._clock = TimestepClock(calibration.timesteps)

    def together(self, specs: list[LayerSpec]) -> dict[str, LayerSums]:
        """Round some layers, give the network its inputs again, and sum up in every layer as it runs."""
        generator = torch.Generator().manual_seed(self._rows.seed)
        errors, taken = {}, {}
        for spec in specs:
            self._advance(f"rounding {spec.name} at 1 to 8 bits")
            prepared = self._prepared(spec)
            errors[spec.name] = LayerErrors(
                self._reference(spec), prepared.weight, spec.groups, self._settings
            )
            taken[spec.name] = _Taken(prepared.activation, generator, errors[spec.name].add)
        self._replay(taken, lambda slot: generator)
        return {name: error.sums() for name, error in errors.items()}

    def in_turn(self, specs: list[LayerSpec], places: Mapping[str, int]) -> Iterator[dict[str, LayerSums]]:
        """Keep what some layers are given in one replay, then round and sum up a few channels at a time.

        Random numbers belong to a layer or a timestep: the result is the same in any groups.

        Args:
            specs: of the group.
            places: of every layer among all, by name.
        """
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {spec.name: [] for spec in specs}
        taken = {
            spec.name: _Taken(
                self._prepared(spec).activation,
                self._generator(places[spec.name]),
                _keeping(kept[spec.name]),
            )
            for spec in specs
        }
        self._replay(taken, lambda slot: self._generator(-1 - slot))
        for spec in specs:
            self._advance(f"rounding {spec.name} at 1 to 8 bits")
            yield {spec.name: self._summed(spec, kept.pop(spec.name))}

    def _summed(self, spec: LayerSpec, rows: list[tuple[Tensor, Tensor]]) -> LayerSums:
        reference, weight = self._reference(spec), self._prepared(spec).weight
        height = max(1, MAX_SLICE_BYTES * spec.out_channels // _stack_bytes(spec))
        if spec.groups > 1:  # channels of other groups see other inputs
            height = spec.out_channels
        sums = []
        for start in range(0, spec.out_channels, height):
            part = slice(start, start + height)
            errors = LayerErrors(reference[part], weight[part], spec.groups, self._settings)
            for pair in rows:
                errors.add(*pair)
            sums.append(errors.sums())
        return joined_sums(sums)

    def _prepared(self, spec: LayerSpec) -> PreparedLayer:
        layer = self._network.get_submodule(spec.name)
        prepared = prepare_layer(
            layer, spec, self._calibration.layers[spec.name], self._settings, self._clock
        )
        prepared.activation.freeze_()
        return prepared

    def _reference(self, spec: LayerSpec) -> Tensor:
        return self._network.get_submodule(spec.name).get_parameter("weight").detach().float()

    def _generator(self, number: int) -> torch.Generator:
        """Random numbers of a layer (from 0 up) or a timestep (below 0)."""
        return torch.Generator().manual_seed(self._rows.seed * SEED_STRIDE + number)

    def _replay(self, taken: Mapping[str, _Taken], images: Callable[[int], torch.Generator]) -> None:
        inputs = self._calibration.inputs
        device = next(self._network.parameters()).device
        with hooks(self._clock.attach(self._network)) as held:
            for name, layer in taken.items():
                hook = partial(layer.on_forward, self._rows.positions)
                held.append(self._network.get_submodule(name).register_forward_pre_hook(hook))
            for slot, timestep in enumerate(inputs.timesteps):
                self._advance(f"measuring {len(taken)} layers at timestep {timestep}")
                index = spread(inputs.samples_per_step, self._rows.images_per_step, images(slot))
                self._network(**inputs.arguments(slot, index, device))


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """Samples rows of what one layer is given, and hands them on."""

    activation: nn.Module
    generator: torch.Generator
    take: Callable[[Tensor, Tensor], None]

    def on_forward(self, positions: int, layer: nn.Module, args: tuple[Any, ...]) -> None:
        """Listen to a call of the layer."""
        x = args[0].float()
        self.take(*input_patches(layer, (x, self.activation(x)), positions, self.generator))


def _keeping(held: list[tuple[Tensor, Tensor]]) -> Callable[[Tensor, Tensor], None]:
    def keep(rows: Tensor, rounded_rows: Tensor) -> None:
        held.append((rows, rounded_rows))

    return keep


def _fingerprint(
    denoiser: Denoiser, calibration: Calibration, settings: QuantSettings, rows: RowSettings
) -> str:
    parts = [
        denoiser.content_hash,
        calibration.content_hash,
        settings.as_dict(),
        asdict(rows),
        MAX_STACK_BYTES,
        MAX_ROW_BYTES,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _split(specs: tuple[LayerSpec, ...], sizes: Sequence[int], limit: int) -> Iterator[list[LayerSpec]]:
    """Runs of layers whose sizes add up to no more than the limit; a larger layer stands alone."""
    group: list[LayerSpec] = []
    total = 0
    for spec, size in zip(specs, sizes, strict=True):
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(spec)
        total += size
    if group:
        yield group


def _stack_bytes(spec: LayerSpec) -> int:
    """Of a layer's weight and its rounded ones."""
    return (len(BITS) + 1) * 4 * spec.out_channels * spec.weights_per_channel


def _row_bytes(spec: LayerSpec, rows: int) -> int:
    """Of so many rows of a layer's input, as they are and rounded; a row has what all groups see."""
    return 2 * 4 * rows * spec.weights_per_channel * spec.groups
