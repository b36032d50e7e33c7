"""What rounding one layer alone does to the network's prediction: measured, a few forward passes a width.

The sensitivity of a channel (see `sensitivity`) is a derivative, and takes errors at different places for
independent. A rounded weight errs alike everywhere, and one or two bits are no small step: layers whose
outputs are averaged over places, such as the values of attention, are then worth far too little. Measuring
puts each layer right as a whole; the sensitivity still says how its error is shared by its channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import SettingsError
from mpqdm_core.layers import quantized_twin
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import check_match, prepare_layer, replace_module
from mpqdm_core.recording import memory_errors, output_tensor, replica, spread
from mpqdm_core.schedules import step_factors
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight

WIDTHS = (
    1,
    2,
    3,
    4,
)  # measured; from four bits up errors are small enough for the sensitivity's straight line
TIMESTEPS, IMAGES_PER_STEP = 5, 4  # recorded inputs that every rounded layer is tried on
AFFORDABLE_MACS = 5e12  # multiply-accumulates; some minutes on two CPU cores


def layer_effects(
    denoiser: Denoiser,
    calibration: Calibration,
    settings: QuantSettings | None = None,
    report: Report = silent,
    *,
    timesteps: int = TIMESTEPS,
    images_per_step: int = IMAGES_PER_STEP,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Round one layer after the other to 1, 2, 3 and 4 bits and look at the prediction.

    Args:
        denoiser: full precision; it is not touched.
        calibration: taken from it; some of its recorded inputs are given again.
        settings: grids, searches, pre-scaling and input bits, as they will be deployed.
        report: told every layer; may raise `Cancelled`.
        timesteps: how many, evenly spread over the calibration's.
        images_per_step: recorded inputs of each of them.
        seed: of the choice of inputs.

    Returns:
        for each quantizable layer (4,) float64: the squared change of the prediction, summed over its values
        and averaged over inputs, each timestep counting as far as its step moves the latent; NaN where the
        change is not finite.

    Raises:
        SettingsError: `timesteps` or `images_per_step` below 1, or memory ran out.
        DataError: the calibration belongs to another model.
        Cancelled: raised by `report`.
    """
    if timesteps < 1 or images_per_step < 1:
        raise SettingsError(
            f"timesteps and images_per_step must be at least 1, got {timesteps} and {images_per_step}"
        )
    check_match(denoiser, calibration)
    settings = settings or QuantSettings()
    specs = denoiser.quantizable_layers
    network, clock = replica(denoiser.network), TimestepClock(calibration.timesteps)
    clock.attach(network)
    with torch.no_grad(), memory_errors("try layers on fewer images per step"):
        trial = _Trial(network, denoiser, calibration, timesteps, images_per_step, seed)
        effects = {}
        for done, spec in enumerate(specs):
            report(done, len(specs), f"rounding {spec.name} alone")
            layer = network.get_submodule(spec.name)
            prepared = prepare_layer(layer, spec, calibration.layers[spec.name], settings, clock)
            changes = []
            for width in WIDTHS:
                bits = torch.full((spec.out_channels,), width)
                params = fit_weight(
                    prepared.weight, bits, grid=settings.grid, exponent=settings.range_exponent
                )
                twin = quantized_twin(layer, params, prepared.activation)
                twin.freeze_()
                replace_module(network, spec.name, twin)
                changes.append(trial.change())
            replace_module(network, spec.name, layer)
            effects[spec.name] = torch.tensor(changes, dtype=torch.float64)
    report(len(specs), len(specs), "effects of layers measured")
    return effects


def affordable_effects(
    denoiser: Denoiser,
    calibration: Calibration,
    settings: QuantSettings | None = None,
    report: Report = silent,
) -> dict[str, Tensor] | None:
    """`layer_effects` where they take minutes on a CPU; None where they would take hours.

    Raises:
        SettingsError: memory ran out.
        DataError: the calibration belongs to another model.
        Cancelled: raised by `report`.
    """
    passes = len(denoiser.quantizable_layers) * len(WIDTHS) * TIMESTEPS * IMAGES_PER_STEP
    if passes * sum(layer.macs for layer in denoiser.layers) > AFFORDABLE_MACS:
        return None
    return layer_effects(denoiser, calibration, settings, report)


def with_effects(table: ErrorTable, effects: Mapping[str, Tensor] | None) -> ErrorTable:
    """The table with the effects of its layers, measured with its settings; as it is where there are none."""
    if effects is None:
        return table
    return replace(table, layer_effect=torch.stack([effects[name] for name in table.layer_names]).numpy())


class _Trial:
    """A network's predictions on chosen inputs, as they were before anything in it was replaced."""

    def __init__(
        self,
        network: nn.Module,
        denoiser: Denoiser,
        calibration: Calibration,
        timesteps: int,
        images_per_step: int,
        seed: int,
    ) -> None:
        inputs, generator = calibration.inputs, torch.Generator().manual_seed(seed)
        count = len(inputs.timesteps)
        slots = torch.linspace(0, count - 1, min(timesteps, count)).round().long().tolist()
        factors = step_factors(denoiser.pipeline.scheduler, inputs.timesteps)[slots].square()
        self._shares = (factors / factors.sum()).tolist()
        self._network = network
        device = next(network.parameters()).device
        self._calls = [
            inputs.arguments(slot, spread(inputs.samples_per_step, images_per_step, generator), device)
            for slot in slots
        ]
        self._before = [output_tensor(network(**call)) for call in self._calls]

    def change(self) -> float:
        """Squared change of the prediction since then."""
        total = 0.0
        for share, call, before in zip(self._shares, self._calls, self._before, strict=True):
            difference = (output_tensor(self._network(**call)) - before).flatten(1).double()
            total += share * float(difference.square().sum(dim=1).mean())
        return total
