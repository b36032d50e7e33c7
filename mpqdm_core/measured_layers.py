"""What was measured of single layers, kept in a file so that a killed measurement goes on from there."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.errors import DataError, LoadError

FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerSums:
    """One layer's sums over rows.

    Attributes:
        error: (8, C) squared error of the output at 1 to 8 bits.
        energy: (C,) squared output.
        kurtosis: (C,) of the pre-scaled weight.
        rows: how many rows were summed.
    """

    error: NDArray[np.float64]
    energy: NDArray[np.float64]
    kurtosis: NDArray[np.float32]
    rows: int


class MeasuredLayers:
    """The layers of one measurement, by name; in memory, and in a file if one is named."""

    def __init__(self, path: str | Path | None, fingerprint: str) -> None:
        """Start with what the file holds, or with nothing.

        Args:
            path: None keeps nothing on disk.
            fingerprint: of model, calibration and settings.

        Raises:
            DataError: the file is of another measurement.
            LoadError: it is damaged.
        """
        self._path = None if path is None else Path(path)
        self._fingerprint = fingerprint
        self._layers: dict[str, LayerSums] = {}
        if self._path is not None and self._path.exists():
            self._layers = _read(self._path, fingerprint)

    def __contains__(self, name: str) -> bool:
        """Whether a layer has been measured."""
        return name in self._layers

    def __getitem__(self, name: str) -> LayerSums:
        """The sums of a layer."""
        return self._layers[name]

    def add(self, sums: Mapping[str, LayerSums]) -> None:
        """Keep some layers."""
        self._layers |= sums
        if self._path is None:
            return
        partial = self._path.with_name(self._path.name + ".part")
        arrays: dict[str, Any] = {FINGERPRINT: np.array(self._fingerprint)}
        for name, layer in self._layers.items():
            arrays |= {
                f"{name}/error": layer.error,
                f"{name}/energy": layer.energy,
                f"{name}/kurtosis": layer.kurtosis,
                f"{name}/rows": np.array(layer.rows),
            }
        with partial.open("wb") as stream:
            np.savez(stream, **arrays)
        os.replace(partial, self._path)

    def finish(self) -> None:
        """Remove the file: its contents are in the table now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _read(path: Path, fingerprint: str) -> dict[str, LayerSums]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        found = str(stored.pop(FINGERPRINT))
        names = [name.removesuffix("/rows") for name in stored if name.endswith("/rows")]
        layers = {
            name: LayerSums(
                error=stored[f"{name}/error"],
                energy=stored[f"{name}/energy"],
                kurtosis=stored[f"{name}/kurtosis"],
                rows=int(stored[f"{name}/rows"]),
            )
            for name in names
        }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoadError(f"{path.name} is damaged ({error}): delete it to measure from the start") from error
    if found != fingerprint:
        raise DataError(
            f"{path.name} is of another measurement (model, calibration or settings differ): delete it, or "
            "name another file"
        )
    return layers
