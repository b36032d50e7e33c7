"""What is known about each model, shared by all visitors of one server; visitors hold keys only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from pages._precomputed import LayerRow, Precomputed, read_weight

Value = TypeVar("Value")
MAX_MODELS = 12  # measurements; the weights of models are bounded in bytes, see _open_models
MAX_RESULTS = 32
MAX_REFERENCES = 8


class Recent(Generic[Value]):
    """The most recently used values, at most `capacity`; safe to share between threads.

    `get_or_make` makes a missing value once even when two visitors ask at the same moment: the second waits.
    """

    def __init__(self, capacity: int) -> None:
        """Start empty."""
        self._capacity = capacity
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._guard = threading.RLock()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable) -> Value | None:
        """The value, now the most recent one, or None."""
        with self._guard:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Keep `value`; the value unused for longest is dropped when there are too many."""
        with self._guard:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)

    def values(self) -> list[Value]:
        """Everything kept, the most recent last."""
        with self._guard:
            return list(self._values.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._values.clear()

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The kept value, or the one `make` returns; an error in `make` keeps nothing."""
        if (found := self.get(key)) is not None:
            return found
        with self._guard:
            lock = self._making.setdefault(key, threading.Lock())
        try:
            with lock:
                if (found := self.get(key)) is None:
                    found = make()
                    self.put(key, found)
                return found
        finally:
            with self._guard:
                self._making.pop(key, None)


@dataclass(kw_only=True, eq=False)
class Workspace:
    """One model and everything measured on it so far."""

    key: str
    title: str
    source: str  # bundled name or folder, as load_denoiser takes it
    description: str = ""
    layers: tuple[LayerRow, ...] = ()
    class_names: tuple[str, ...] = ()
    parameters: int = 0
    sampler: dict[str, Any] = field(default_factory=dict)
    schedulers: tuple[str, ...] = ()  # names of the samplers it can be drawn by, beside its own
    prompted: bool = False  # asked in words: class_names are prompts
    family: str = ""  # its title, once the model has been looked at by the library
    pipeline_class: str = ""
    parts: tuple[Any, ...] = ()  # ModelPart of every component
    stored: Any = None  # StoredDenoiser, when only its files were looked at
    precomputed: Precomputed | None = None
    denoiser: Any = None
    calibration: Any = None
    outliers: Any = None
    tables: dict[int | None, Any] = field(default_factory=dict)
    extra: dict[Hashable, Any] = field(default_factory=dict)  # Rounding -> table of other rounding or layers
    lock: threading.RLock = field(default_factory=threading.RLock)

    def table(self, activation_bits: int | None) -> Any | None:
        """The error table for these activation bits (None: full precision), or None if not measured."""
        with self.lock:
            if activation_bits not in self.tables and self.precomputed is not None:
                found = self.precomputed.error_table(activation_bits)
                if found is not None:
                    self.tables[activation_bits] = found
            return self.tables.get(activation_bits)

    def outlier_stats(self) -> Any | None:
        """The outlier statistics, or None if not measured."""
        with self.lock:
            if self.outliers is None and self.precomputed is not None:
                self.outliers = self.precomputed.outliers()
            return self.outliers

    def layer_names(self) -> tuple[str, ...]:
        """The layers that share the bit budget, network order; empty before anything was measured."""
        table = self.table(next(iter(self.measured_bits()), None))
        return () if table is None else table.layer_names

    def weight(self, layer: str) -> np.ndarray:
        """The weight of a layer, (C_out, ...), from the loaded model or from the shipped file.

        Raises:
            LoadError: there is neither, or no such layer.
        """
        if self.denoiser is not None:
            module = self.denoiser.network.get_submodule(layer)
            return module.get_parameter("weight").detach().float().cpu().numpy()
        if self.stored is not None:
            return self.stored.layer(layer).weight().float().numpy()
        return read_weight(self.source, layer)

    def prescale(self, layer: str) -> np.ndarray | None:
        """(I,) factors of the pre-scaling of a layer's inputs, or None if there are none."""
        stats = self.outlier_stats()
        return stats.layer_prescale(layer) if stats is not None and layer in stats.layer_names else None

    def measured_bits(self) -> tuple[int | None, ...]:
        """Activation bits with an error table, None last."""
        known = set(self.tables) | set(self.precomputed.table_bits() if self.precomputed else ())
        return tuple(sorted(known, key=lambda bits: 99 if bits is None else bits))


WORKSPACES: Recent[Workspace] = Recent(MAX_MODELS)
ALLOCATIONS: Recent[Any] = Recent(512)
COMPARISONS: Recent[Any] = Recent(MAX_RESULTS)
REFERENCES: Recent[Any] = Recent(MAX_REFERENCES)  # pictures of full precision, with all their steps
