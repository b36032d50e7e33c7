"""What every bit is worth: the measured output error of each channel at each bit-width.

Float32 on disk and in memory; sums over channels are done in float64 by those who use the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.errors import DataError, LoadError, ShapeError

BITS = (1, 2, 3, 4, 5, 6, 7, 8)
"""The bit-widths of the table's columns."""

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False, slots=True, weakref_slot=True)
class ErrorTable:
    """Output error of every quantizable channel at 1 to 8 bits, with what is needed to weigh it.

    Channels of all layers lie in one row after another, in network order; layer `l` owns
    `layer_start[l]:layer_start[l + 1]`. Exempt layers are not in the table. NaN is allowed everywhere and
    means "could not be measured"; the allocation treats it as worth nothing. Arrays are read-only.

    Attributes:
        layer_names: names of the L layers, unique, in network order.
        layer_start: (L + 1,) int64, first channel of each layer; starts at 0 and increases.
        weights_per_channel: (L,) int64, weights in one output channel of the layer.
        error: (C, 8) float32, `error[c, b - 1]` is the mean over rows of (x.w - Qa(x').Qb(w'))**2 at b bits.
        energy: (C,) float32, mean over rows of (x.w)**2.
        kurtosis: (C,) float32, of the weight the quantizer sees (after pre-scaling).
        sensitivity: (C,) float32 or None, the mean over samples of the sum over positions of (d eps / d
            y)**2.
        layer_effect: (L, W) float32 or None, the squared change of eps when all channels of one layer, and
            none of another, have 1 to W bits.
        settings: what the table was measured with; JSON scalars only.

    Raises:
        ShapeError: lengths do not agree.
        DataError: a negative error, duplicate names, an empty layer.
    """

    layer_names: tuple[str, ...]
    layer_start: NDArray[np.int64]
    weights_per_channel: NDArray[np.int64]
    error: NDArray[np.float32]
    energy: NDArray[np.float32]
    kurtosis: NDArray[np.float32]
    sensitivity: NDArray[np.float32] | None = None
    layer_effect: NDArray[np.float32] | None = None
    settings: Mapping[str, str | int | float | None] = field(default_factory=dict)
    _hash: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Bring arrays to their type, make them read-only and check that they fit together."""
        dtypes: dict[str, type[np.generic]] = {
            "layer_start": np.int64,
            "weights_per_channel": np.int64,
            "error": np.float32,
            "energy": np.float32,
            "kurtosis": np.float32,
            "sensitivity": np.float32,
            "layer_effect": np.float32,
        }
        for name, dtype in dtypes.items():
            value = getattr(self, name)
            if value is not None:
                # Column after column in memory: whoever uses the table reads one bit-width at a time.
                array = np.asarray(value, dtype=dtype, order="F").view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        object.__setattr__(self, "layer_names", tuple(self.layer_names))
        _check_layers(self)
        _check_channels(self)

    @property
    def channels(self) -> int:
        """Number of channels over all layers."""
        return int(self.error.shape[0])

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits over names, numbers and settings; computed once."""
        if not self._hash:
            digest = hashlib.sha256(
                json.dumps([self.layer_names, dict(self.settings)], sort_keys=True).encode()
            )
            for array in _arrays(self).values():
                digest.update(array.tobytes())  # row by row, whatever the layout in memory
            self._hash.append(digest.hexdigest()[:16])
        return self._hash[0]

    def layer_slice(self, name: str) -> slice:
        """Where the channels of the named layer lie.

        Raises:
            DataError: the table has no such layer.
        """
        if name not in self.layer_names:
            raise DataError(f"the error table has no layer {name!r}; it has {len(self.layer_names)} layers")
        index = self.layer_names.index(name)
        return slice(int(self.layer_start[index]), int(self.layer_start[index + 1]))

    def save(self, path: str | Path) -> None:
        """Write one .npz file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        header = {"version": FORMAT_VERSION, "layer_names": self.layer_names, "settings": dict(self.settings)}
        partial = target.with_name(target.name + ".part")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, header=np.array(json.dumps(header)), **_arrays(self))  # type: ignore[arg-type]
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> ErrorTable:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing, damaged, or not an error table.
        """
        source = Path(path)
        if not source.is_file():
            raise LoadError(f"no error table at {source}")
        try:
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                stored = {name: archive[name] for name in archive.files}
            header: dict[str, Any] = json.loads(str(stored.pop("header")))
            version = header["version"]
            if version != FORMAT_VERSION:
                raise LoadError(f"{source.name} is of format {version}; this version reads {FORMAT_VERSION}")
            return cls(layer_names=tuple(header["layer_names"]), settings=header["settings"], **stored)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as err:
            raise LoadError(f"{source.name} is damaged or is not an error table ({err})") from err


def _arrays(table: ErrorTable) -> dict[str, NDArray[Any]]:
    """The arrays by name, in the order that is hashed and stored."""
    arrays: dict[str, NDArray[Any]] = {
        "layer_start": table.layer_start,
        "weights_per_channel": table.weights_per_channel,
        "error": table.error,
        "energy": table.energy,
        "kurtosis": table.kurtosis,
    }
    if table.sensitivity is not None:
        arrays["sensitivity"] = table.sensitivity
    if table.layer_effect is not None:
        arrays["layer_effect"] = table.layer_effect
    return arrays


def _check_layers(table: ErrorTable) -> None:
    layers = len(table.layer_names)
    if layers == 0:
        raise DataError("an error table needs at least one layer")
    if len(set(table.layer_names)) != layers:
        raise DataError("layer names of an error table must be unique")
    if table.layer_start.shape != (layers + 1,):
        raise ShapeError(f"layer_start must be ({layers + 1},), got {table.layer_start.shape}")
    if table.weights_per_channel.shape != (layers,):
        raise ShapeError(f"weights_per_channel must be ({layers},), got {table.weights_per_channel.shape}")
    if table.layer_start[0] != 0 or (np.diff(table.layer_start) < 1).any():
        raise DataError("layer_start must begin with 0 and every layer must have a channel")
    if (table.weights_per_channel < 1).any():
        raise DataError("weights_per_channel must be at least 1 in every layer")


def _check_channels(table: ErrorTable) -> None:
    channels = int(table.layer_start[-1])
    if table.error.shape != (channels, len(BITS)):
        raise ShapeError(f"error must be ({channels}, {len(BITS)}), got {table.error.shape}")
    for name in ("energy", "kurtosis", "sensitivity"):
        value = getattr(table, name)
        if value is not None and value.shape != (channels,):
            raise ShapeError(f"{name} must be ({channels},), got {value.shape}")
    if (table.error < 0).any():
        raise DataError("errors are mean squares and cannot be negative")
    effect = table.layer_effect
    if effect is not None:
        if effect.ndim != 2 or len(effect) != len(table.layer_names) or not 1 <= effect.shape[1] <= len(BITS):
            raise ShapeError(f"layer_effect must be ({len(table.layer_names)}, 1 to 8), got {effect.shape}")
        if (effect < 0).any():
            raise DataError("effects are mean squares and cannot be negative")
