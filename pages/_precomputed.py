"""Results that ship with a bundled model, read so that the first page needs neither the model nor torch.

assets/data/<model>/
    model.json                title, description, class_names, parameters, sampler, and layers: a list of
                              LayerSpec as dictionaries, network order, exempt ones included
    error_table_<...>.npz     ErrorTable.save for activation bits a2 to a8, and none for full precision
    outliers.npz              OutlierMap.save
    calibration.safetensors   Calibration.save; optional: without it a comparison calibrates first
    samples/samples.json      tile, seeds, labels, timesteps, reference, variants; these two are picture
                              sheets {key, title, file, figures: {name: text}}, and the file is a PNG with a
                              row for each sample, a tile for each timestep, then the finished picture
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mpqdm_core.errors import LoadError
from pages._text import ASSETS

DATA = ASSETS / "data"
MODELS = ASSETS / "models"
SAMPLES = "samples"  # folder of the pictures, which the page may serve
DEFAULT_MODEL = "sprites-ldm"


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What the page shows of one layer; the same fields as the library's LayerSpec."""

    name: str
    kind: str
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...] = ()
    groups: int = 1
    weights_per_channel: int = 0
    parameters: int = 0
    macs: int = 0
    exempt: str | None = None
    reason: str = ""

    @classmethod
    def read(cls, source: Any) -> LayerRow:
        """From a dictionary of model.json or from a LayerSpec."""
        get = (
            source.get
            if isinstance(source, dict)
            else lambda name, default=None: getattr(source, name, default)
        )
        values = {item.name: get(item.name) for item in fields(cls)}
        values["kernel"] = tuple(values["kernel"] or ())
        return cls(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Precomputed:
    """The folder of one bundled model."""

    folder: Path

    @classmethod
    def find(cls, model: str) -> Precomputed | None:
        """The results of `model`, or None when none were shipped."""
        return cls(folder=DATA / model) if (DATA / model / "model.json").is_file() else None

    def card(self) -> dict[str, Any]:
        """The contents of model.json.

        Raises:
            LoadError: the file cannot be read.
        """
        return _json(self.folder / "model.json")

    def table_bits(self) -> tuple[int | None, ...]:
        """Activation bits for which an error table was shipped; None stands for full precision."""
        numbered = tuple(bits for bits in range(1, 9) if self._table_file(bits).is_file())
        return (*numbered, None) if self._table_file(None).is_file() else numbered

    def error_table(self, activation_bits: int | None) -> Any | None:
        """The error table, or None when it was not shipped."""
        from mpqdm_core.error_table import ErrorTable

        file = self._table_file(activation_bits)
        return ErrorTable.load(file) if file.is_file() else None

    def outliers(self) -> Any | None:
        """The outlier statistics, or None when they were not shipped."""
        from mpqdm_core.outlier_map import OutlierMap

        file = self.folder / "outliers.npz"
        return OutlierMap.load(file) if file.is_file() else None

    def samples(self) -> dict[str, Any] | None:
        """The contents of samples.json, or None when no pictures were shipped."""
        file = self.folder / SAMPLES / "samples.json"
        return _json(file) if file.is_file() else None

    def picture_file(self, name: str) -> Path:
        """Where samples/`name` is, a PNG; nothing outside that folder."""
        return self.folder / SAMPLES / Path(name).name

    def picture(self, name: str) -> bytes:
        """The bytes of samples/`name`, a PNG."""
        try:
            return self.picture_file(name).read_bytes()
        except OSError as err:
            raise LoadError(f"the picture {name!r} that ships with the model cannot be read: {err}") from err

    def _table_file(self, activation_bits: int | None) -> Path:
        return self.folder / f"error_table_{'none' if activation_bits is None else f'a{activation_bits}'}.npz"


def shipped_pictures() -> list[Path]:
    """The folders of pictures that the page may serve, one for each model that ships with some."""
    return sorted(DATA.glob(f"*/{SAMPLES}"))


def read_weight(model: str, layer: str) -> np.ndarray:
    """A weight of a bundled model straight from its file, without building the model.

    Raises:
        LoadError: the model's files are not there, or it has no such layer.
    """
    from safetensors import SafetensorError, safe_open

    file = MODELS / model / "unet" / "diffusion_pytorch_model.safetensors"
    try:
        with safe_open(file, framework="numpy") as archive:
            return np.asarray(archive.get_tensor(f"{layer}.weight"), dtype=np.float32)
    except (OSError, SafetensorError) as err:
        raise LoadError(
            f"the weight of {layer} cannot be read from {model}: {err}; load the model first"
        ) from err


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise LoadError(f"{file.name} that ships with the model is damaged: {err}") from err
