"""What makes a model hard to quantize: statistics of every layer's weights and inputs.

Weights are looked at as they are and as the quantizer sees them after pre-scaling; inputs by timestep, from
the statistics that calibration streamed. Results are numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser, LayerSpec
from mpqdm_core.errors import SettingsError
from mpqdm_core.input_stats import LayerInputStats
from mpqdm_core.kurtosis import ChannelStatistics, channel_statistics
from mpqdm_core.progress import Report, silent
from mpqdm_core.quantization import check_match, layer_prescale
from mpqdm_core.weights import prescaled_weight


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputOutliers:
    """A layer's input by timestep and input channel; (T, C_in) float32 unless said otherwise."""

    absmax: NDArray[np.float32]
    rms: NDArray[np.float32]
    low: NDArray[np.float32]  # (T,) smallest value over all channels
    high: NDArray[np.float32]  # (T,) largest value over all channels

    @property
    def channel_spread(self) -> NDArray[np.float32]:
        """(T,) largest channel's maximum over the median channel's; 0 where that is dead."""
        median = np.median(self.absmax, axis=1)
        largest = self.absmax.max(axis=1)
        spread: NDArray[np.float32] = np.divide(largest, median, out=np.zeros_like(largest), where=median > 0)
        return spread


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerOutliers:
    """One layer; exempt layers have no pre-scaling."""

    name: str
    weight: ChannelStatistics  # of the weight as it is
    prescaled: ChannelStatistics | None  # of W / prescale; None without calibration or pre-scaling
    prescale: NDArray[np.float32] | None  # (C_in,) factors the input is multiplied with
    inputs: InputOutliers | None  # None without calibration


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutlierStats:
    """Every linear layer and convolution of a model, in running order."""

    timesteps: tuple[int, ...]  # (T,); empty without calibration
    layers: tuple[LayerOutliers, ...]

    def layer(self, name: str) -> LayerOutliers:
        """Return the statistics of one layer.

        Raises:
            SettingsError: there is no such layer.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise SettingsError(f"no statistics for layer {name!r}; there are {len(self.layers)} layers")


def outlier_stats(
    denoiser: Denoiser,
    calibration: Calibration | None = None,
    alpha: float | None = None,
    report: Report = silent,
    *,
    names: Sequence[str] | None = None,
) -> OutlierStats:
    """Look at every layer's weights and, with a calibration, at its inputs.

    Args:
        denoiser: full precision; it is not touched.
        calibration: taken from it; None leaves out inputs and pre-scaling.
        alpha: of the pre-scaling; None leaves it out.
        report: told every layer; may raise `Cancelled`.
        names: only these layers; None takes all.

    Raises:
        SettingsError: `alpha` without a calibration or outside [0, 1], or an unknown name.
        DataError: the calibration belongs to another model.
        Cancelled: raised by `report`.
    """
    if calibration is not None:
        check_match(denoiser, calibration)
    elif alpha is not None:
        raise SettingsError("pre-scaling depends on a layer's inputs: give a calibration too")
    specs = denoiser.layers if names is None else tuple(denoiser.layer(name) for name in names)
    layers = []
    for done, spec in enumerate(specs):
        report(done, len(specs), f"looking at {spec.name}")
        stats = None if calibration is None else calibration.layers.get(spec.name)
        layers.append(_layer(denoiser, spec, stats, alpha))
    report(len(specs), len(specs), "all layers seen")
    return OutlierStats(timesteps=() if calibration is None else calibration.timesteps, layers=tuple(layers))


def _layer(
    denoiser: Denoiser, spec: LayerSpec, stats: LayerInputStats | None, alpha: float | None
) -> LayerOutliers:
    layer = denoiser.network.get_submodule(spec.name)
    weight = layer.get_parameter("weight").detach()
    scaled = stats is not None and alpha is not None and spec.exempt is None
    prescale = layer_prescale(layer, spec.groups, stats, alpha) if stats is not None and scaled else None
    return LayerOutliers(
        name=spec.name,
        weight=channel_statistics(weight),
        prescaled=None
        if prescale is None
        else channel_statistics(prescaled_weight(weight, prescale, spec.groups)),
        prescale=None if prescale is None else prescale.cpu().numpy(),
        inputs=None if stats is None else _inputs(stats),
    )


def _inputs(stats: LayerInputStats) -> InputOutliers:
    return InputOutliers(
        absmax=stats.absmax.numpy(),
        rms=torch.sqrt(stats.mean_square).numpy(),
        low=stats.low.numpy(),
        high=stats.high.numpy(),
    )
