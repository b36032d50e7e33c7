"""Outlier statistics and error tables straight from files, for checkpoints larger than memory.

Weights pass through memory a few rows at a time, so time grows with bytes and memory does not. Without inputs
there is no pre-scaling and no output error: the table's errors are those of white-noise inputs of variance
one, under which a channel's output error is the sum of its weights' squared errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.kurtosis import channel_kurtosis, join_parts, part_statistics
from mpqdm_core.mapped_file import MappedFile
from mpqdm_core.outliers import LayerOutliers, OutlierStats
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.row_pass import RowFacts
from mpqdm_core.stored_weights import StoredDenoiser, StoredLayer
from mpqdm_core.weights import fit_weight, round_weight

PARTS_AT_ONCE = 4  # read by one thread before it hands over: the thread that collects takes time from both
WITHOUT_INPUTS = {"activation_bits": None, "prescale_alpha": None, "inputs": "white noise"}


def stored_outlier_stats(stored: StoredDenoiser, report: Report = silent) -> OutlierStats:
    """Look at every layer's weights; the same numbers as with the model in memory.

    Args:
        stored: see `open_stored`.
        report: told in MiB after every few rows; may raise `Cancelled`.

    Returns:
        Statistics without inputs and pre-scaling, in the order of `stored.layers`.

    Raises:
        LoadError: a file cannot be read any more.
        Cancelled: raised by `report`.
    """
    meter = _Meter(stored.layers, report)
    found: dict[str, list[RowFacts]] = {layer.name: [] for layer in stored.layers}
    parts = [(layer, channels) for layer in stored.layers for channels in layer.parts()]
    turns = [parts[start : start + PARTS_AT_ONCE] for start in range(0, len(parts), PARTS_AT_ONCE)]
    written = {layer.path: layer.changed_ns for layer in stored.layers}
    files = {path: MappedFile(path, changed_ns) for path, changed_ns in written.items()}

    def look(turn: list[tuple[StoredLayer, range]]) -> list[list[RowFacts]]:
        return [part_statistics(layer.look(files[layer.path], channels)) for layer, channels in turn]

    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        try:
            for turn, seen in zip(turns, workers.map(look, turns), strict=True):
                for (layer, channels), facts in zip(turn, seen, strict=True):
                    found[layer.name] += facts
                    meter.add(layer, channels)
        finally:
            workers.shutdown(cancel_futures=True)
            for file in files.values():
                file.close()
    layers = tuple(
        LayerOutliers(
            name=layer.name,
            weight=join_parts(found[layer.name], layer.weights_per_channel),
            prescaled=None,
            prescale=None,
            inputs=None,
        )
        for layer in stored.layers
    )
    return OutlierStats(timesteps=(), layers=layers)


def stored_error_table(
    stored: StoredDenoiser, settings: QuantSettings | None = None, report: Report = silent
) -> ErrorTable:
    """Measure what every bit-width of every channel costs in squared error of its weights.

    Args:
        stored: see `open_stored`.
        settings: grid and range search; activation bits and pre-scaling are not used without inputs.
        report: told in MiB; may raise `Cancelled`.

    Returns:
        A table that `allocate` takes; `settings["inputs"]` says that inputs were white noise.

    Raises:
        LoadError: a file cannot be read any more.
        Cancelled: raised by `report`.
    """
    settings = settings or QuantSettings()
    layers = stored.quantizable_layers
    meter = _Meter(layers, report)
    error, energy, kurtosis = [], [], []
    for layer in layers:
        for rows in meter.read(layer):
            weight = rows.float()
            error.append(_weight_errors(weight, settings))
            energy.append(weight.flatten(1).double().square().sum(dim=1).numpy())
            kurtosis.append(channel_kurtosis(weight).numpy())
    channels = [layer.out_channels for layer in layers]
    return ErrorTable(
        layer_names=tuple(layer.name for layer in layers),
        layer_start=np.concatenate([[0], np.cumsum(channels)]).astype(np.int64),
        weights_per_channel=np.array([layer.weights_per_channel for layer in layers], dtype=np.int64),
        error=np.concatenate(error).astype(np.float32),
        energy=np.concatenate(energy).astype(np.float32),
        kurtosis=np.concatenate(kurtosis).astype(np.float32),
        sensitivity=None,
        settings={
            **settings.as_dict(),
            "activation_bits": None,
            "prescale_alpha": None,
            "inputs": "white noise",
        },
    )


def _weight_errors(weight: Tensor, settings: QuantSettings) -> np.ndarray:
    """Sum of squared rounding errors of every channel at each bit-width: (c, 8) float64."""
    columns = []
    for bits in BITS:
        widths = torch.full((len(weight),), bits)
        params = fit_weight(weight, widths, grid=settings.grid, exponent=settings.range_exponent)
        difference = round_weight(weight, params).sub_(weight).flatten(1)
        columns.append(difference.double().square_().sum(dim=1).numpy())
    return np.stack(columns, axis=1)


class _Meter:
    """Reports how many MiB of some layers have been read."""

    def __init__(self, layers: tuple[StoredLayer, ...], report: Report) -> None:
        self._total = max(1, sum(layer.nbytes for layer in layers) >> 20)
        self._report, self._read = report, 0

    def read(self, layer: StoredLayer) -> Iterator[Tensor]:
        """The rows of a layer, in parts."""
        for channels in layer.parts():
            yield layer.read(channels)
            self.add(layer, channels)

    def add(self, layer: StoredLayer, channels: range) -> None:
        """Report that these have been read."""
        self._read += len(channels) * layer.row_bytes
        self._report(min(self._read >> 20, self._total), self._total, f"reading {layer.name}")
