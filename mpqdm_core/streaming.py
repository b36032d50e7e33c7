"""Outlier statistics and error tables straight from files, for checkpoints larger than memory.

Weights pass through memory a few rows at a time, so time grows with bytes and memory does not. Without inputs
there is no pre-scaling and no output error: the table's errors are those of white-noise inputs of variance
one, under which a channel's output error is the sum of its weights' squared errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mpqdm_core.error_table import BITS, ErrorTable
from mpqdm_core.freed_memory import give_back
from mpqdm_core.kurtosis import channel_kurtosis, join_parts, part_statistics
from mpqdm_core.mapped_file import MappedFile
from mpqdm_core.outliers import LayerOutliers, OutlierStats
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.row_pass import RowFacts
from mpqdm_core.stored_weights import StoredDenoiser, StoredLayer
from mpqdm_core.weights import fit_weight, round_weight

PARTS_AT_ONCE = 4
WITHOUT_INPUTS = {"activation_bits": None, "prescale_alpha": None, "inputs": "white noise"}
Result = TypeVar("Result")


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
    found: dict[str, list[RowFacts]] = {layer.name: [] for layer in stored.layers}
    for layer, facts in _each_part(stored.layers, part_statistics, PARTS_AT_ONCE, report):
        found[layer.name] += facts
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

    def measure(rows: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weight = rows.to(torch.float32, copy=True)  # takes a second: too long to trust the file's own pages
        energy = weight.flatten(1).double().square().sum(dim=1).numpy()
        found = _weight_errors(weight, settings), energy, channel_kurtosis(weight).numpy()
        give_back()  # pieces of all sizes were made and freed: the gaps between others would add up
        return found

    measured = [found for _, found in _each_part(layers, measure, 1, report)]
    error, energy, kurtosis = (np.concatenate(column) for column in zip(*measured, strict=True))
    channels = [layer.out_channels for layer in layers]
    return ErrorTable(
        layer_names=tuple(layer.name for layer in layers),
        layer_start=np.concatenate([[0], np.cumsum(channels)]).astype(np.int64),
        weights_per_channel=np.array([layer.weights_per_channel for layer in layers], dtype=np.int64),
        error=error.astype(np.float32),
        energy=energy.astype(np.float32),
        kurtosis=kurtosis.astype(np.float32),
        sensitivity=None,
        settings=settings.as_dict() | WITHOUT_INPUTS,
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


def _each_part(
    layers: Sequence[StoredLayer], work: Callable[[Tensor], Result], at_once: int, report: Report
) -> Iterator[tuple[StoredLayer, Result]]:
    """What `work` makes of every part of some layers, in order; computed in as many threads as torch uses.

    `at_once` parts are read by one thread before it hands over: the thread that collects takes time from all.
    """
    parts = [(layer, channels) for layer in layers for channels in layer.parts()]
    turns = [parts[start : start + at_once] for start in range(0, len(parts), at_once)]
    written = {layer.path: layer.changed_ns for layer in layers}
    total, done = max(1, sum(layer.nbytes for layer in layers) >> 20), 0
    with ExitStack() as open_files, ThreadPoolExecutor(torch.get_num_threads()) as workers:
        files = {path: open_files.enter_context(MappedFile(path, ns)) for path, ns in written.items()}

        def look(turn: list[tuple[StoredLayer, range]]) -> list[Result]:
            return [work(layer.look(files[layer.path], channels)) for layer, channels in turn]

        try:
            for turn, results in zip(turns, workers.map(look, turns), strict=True):
                for (layer, channels), result in zip(turn, results, strict=True):
                    yield layer, result
                    done += len(channels) * layer.row_bytes
                    report(min(done >> 20, total), total, f"reading {layer.name}")
        finally:
            workers.shutdown(cancel_futures=True)
