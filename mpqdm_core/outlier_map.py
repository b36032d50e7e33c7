"""Outlier statistics of a whole model as flat arrays: saved with a bundled model, read without torch.

`OutlierStats` keeps one record a layer; a map of layers x channels, a list of the worst channels and a file
want one row of channels. Channels of layer l are `layer_start[l]:layer_start[l + 1]`.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.errors import LoadError, SettingsError

if TYPE_CHECKING:  # only a type: the module behind it imports torch
    from mpqdm_core.outliers import OutlierStats

FORMAT_VERSION = 1
WEIGHT_STATISTICS = ("kurtosis", "crest", "range_ratio", "outlier_fraction", "energy_share")
INPUT_STATISTICS = ("absmax", "rms", "crest", "channel_ratio")
GAUSSIAN_KURTOSIS = 3.0
Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutlierMap:
    """Statistics of every quantizable layer.

    Attributes:
        layer_names: the L layers.
        layer_start: (L + 1,) int64, output channels.
        input_start: (L + 1,) int64, input channels.
        weights: name of a statistic -> (C,) float32, of the weight as it is.
        prescaled: the same of the pre-scaled weight; NaN where there is none. Empty: never pre-scaled.
        prescale: (C_in,) float32 factors the inputs are multiplied with; 1 where there is none.
        timesteps: (T,) int64; empty without calibration.
        absmax: (T, C_in) float32, largest input by timestep.
        rms: (T, C_in) float32.
        low: (T, L) float32, smallest input of a layer.
        high: (T, L) float32, largest input of a layer.
    """

    layer_names: tuple[str, ...]
    layer_start: NDArray[np.int64]
    input_start: NDArray[np.int64]
    weights: Mapping[str, Array]
    prescaled: Mapping[str, Array]
    prescale: Array
    timesteps: NDArray[np.int64]
    absmax: Array
    rms: Array
    low: Array
    high: Array

    @classmethod
    def from_stats(cls, stats: OutlierStats, names: Sequence[str]) -> OutlierMap:
        """Lay the statistics of the named layers out flat.

        Args:
            stats: of the model.
            names: the quantizable layers, in the order wanted.
        """
        layers = [stats.layer(name) for name in names]
        widths = [_input_width(layer) for layer in layers]
        scaled = any(layer.prescaled is not None for layer in layers)
        steps = len(stats.timesteps)

        def pooled(part: str, name: str) -> Array:
            rows = []
            for layer in layers:
                found = getattr(layer, part)
                blank = np.full(len(layer.weight.kurtosis), np.nan)
                rows.append(blank if found is None else getattr(found, name))
            return np.concatenate(rows).astype(np.float32)

        def inputs(name: str, shape: Sequence[tuple[int, ...]]) -> Array:
            rows = [
                np.full(size, np.nan) if layer.inputs is None else getattr(layer.inputs, name).reshape(size)
                for layer, size in zip(layers, shape, strict=True)
            ]
            return np.concatenate(rows, axis=1).astype(np.float32)

        wide, narrow = [(steps, width) for width in widths], [(steps, 1)] * len(layers)
        factors = [
            np.ones(width) if layer.prescale is None else layer.prescale
            for layer, width in zip(layers, widths, strict=True)
        ]
        return cls(
            layer_names=tuple(names),
            layer_start=_starts([len(layer.weight.kurtosis) for layer in layers]),
            input_start=_starts(widths),
            weights={name: pooled("weight", name) for name in WEIGHT_STATISTICS},
            prescaled={name: pooled("prescaled", name) for name in WEIGHT_STATISTICS} if scaled else {},
            prescale=np.concatenate(factors).astype(np.float32),
            timesteps=np.array(stats.timesteps, dtype=np.int64),
            absmax=inputs("absmax", wide),
            rms=inputs("rms", wide),
            low=inputs("low", narrow),
            high=inputs("high", narrow),
        )

    def input_statistic(self, name: str, step: int) -> Array:
        """(C_in,) one statistic of the inputs at the step-th timestep.

        `crest` is the largest value by the RMS; `channel_ratio` the channel's largest value by that of the
        layer's median channel, 0 where that is dead.

        Raises:
            SettingsError: an unknown name, or no such step.
        """
        if not 0 <= step < len(self.timesteps):
            raise SettingsError(f"step must be in 0..{len(self.timesteps) - 1}, got {step}")
        absmax: Array = self.absmax[step]
        rms: Array = self.rms[step]
        if name == "absmax":
            return absmax
        if name == "rms":
            return rms
        if name == "crest":
            crest: Array = np.divide(absmax, rms, out=np.zeros_like(absmax), where=rms > 0)
            return crest
        if name == "channel_ratio":
            parts = np.split(absmax, self.input_start[1:-1])
            middle = np.repeat([float(np.median(part)) for part in parts], np.diff(self.input_start))
            middle = middle.astype(np.float32)
            ratio: Array = np.divide(absmax, middle, out=np.zeros_like(absmax), where=middle > 0)
            return ratio
        raise SettingsError(f"an input statistic is one of {', '.join(INPUT_STATISTICS)}, got {name!r}")

    def layer_prescale(self, layer: str) -> Array:
        """(I,) factors of one layer's inputs.

        Raises:
            SettingsError: there is no such layer.
        """
        if layer not in self.layer_names:
            raise SettingsError(
                f"no statistics for layer {layer!r}; there are {len(self.layer_names)} layers"
            )
        row = self.layer_names.index(layer)
        factors: Array = self.prescale[self.input_start[row] : self.input_start[row + 1]]
        return factors

    def save(self, path: str | Path) -> None:
        """Write one .npz file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        header = {
            "version": FORMAT_VERSION,
            "layer_names": self.layer_names,
            "prescaled": bool(self.prescaled),
        }
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        arrays |= {f"weights/{name}": values for name, values in self.weights.items()}
        arrays |= {f"prescaled/{name}": values for name, values in self.prescaled.items()}
        partial = target.with_name(target.name + ".part")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, header=np.array(json.dumps(header)), **arrays)
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> OutlierMap:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or something else.
        """
        source = Path(path)
        if not source.is_file():
            raise LoadError(f"no outlier statistics at {source}")
        try:
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                plain: dict[str, Any] = {name: archive[name] for name in _PLAIN}
                parts = {
                    part: {name: archive[f"{part}/{name}"] for name in WEIGHT_STATISTICS}
                    for part in ("weights", *(("prescaled",) if header["prescaled"] else ()))
                }
            if header["version"] != FORMAT_VERSION:
                raise LoadError(
                    f"{source.name} has format {header['version']}, this version reads {FORMAT_VERSION}"
                )
            prescaled = parts.get("prescaled", {})
            names = tuple(header["layer_names"])
            return cls(layer_names=names, weights=parts["weights"], prescaled=prescaled, **plain)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as err:
            raise LoadError(f"{source.name} is damaged or holds no outlier statistics ({err})") from err


def layers_holding(
    values: NDArray[Any], layer_start: NDArray[np.int64], share: float = 0.8
) -> tuple[int, ...]:
    """The fewest layers that together hold `share` of the sum of `values`, the largest first.

    Args:
        values: (C,) what is shared out; negative and not finite values count as nothing.
        layer_start: (L + 1,) first channel of each layer.
        share: 0..1.

    Returns:
        indices of layers; none if there is nothing to hold.
    """
    kept = np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0).astype(np.float64)
    sums = np.add.reduceat(kept, layer_start[:-1])
    total = float(sums.sum())
    if total <= 0:
        return ()
    order = np.argsort(-sums, kind="stable")
    count = int(np.searchsorted(np.cumsum(sums[order]), share * total * (1 - 1e-12))) + 1
    return tuple(int(index) for index in order[:count])


def excess_kurtosis(kurtosis: NDArray[Any]) -> NDArray[np.float64]:
    """How far each channel is above a Gaussian's 3; 0 below it, NaN stays NaN."""
    return np.where(np.isnan(kurtosis), np.nan, np.maximum(kurtosis - GAUSSIAN_KURTOSIS, 0.0))


def worst_channels(values: NDArray[Any], count: int, above: float = -np.inf) -> NDArray[np.int64]:
    """Indices of the largest finite values above a threshold, the largest first."""
    ranked = np.where(np.isfinite(values), values, -np.inf)
    order = np.argsort(-ranked, kind="stable")[:count]
    keep = np.isfinite(ranked[order]) & (ranked[order] > above)
    return order[keep].astype(np.int64)


_PLAIN = ("layer_start", "input_start", "prescale", "timesteps", "absmax", "rms", "low", "high")


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _input_width(layer: Any) -> int:
    """Input channels of a layer as far as its statistics tell; 1 when nothing was calibrated."""
    if layer.inputs is not None:
        return int(layer.inputs.absmax.shape[1])
    return 1 if layer.prescale is None else len(layer.prescale)
