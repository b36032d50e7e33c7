"""A bit plan: how many bits every channel gets. The one thing a quantizer needs from an allocation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.settings import AllocationSettings
from mpqdm_core.error_table import BITS
from mpqdm_core.errors import DataError, LoadError, ShapeError

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BitPlan:
    """Bits of every channel of every quantizable layer.

    Attributes:
        layer_names: the L layers in network order, unique.
        layer_start: (L + 1,) int64, channels of layer l are `layer_start[l]:layer_start[l + 1]`.
        weights_per_channel: (L,) int64.
        bits: (C,) int8, each from 1 to 8; read-only.
        settings: what was asked for.

    Raises:
        ShapeError: lengths do not agree.
        DataError: bits outside 1..8.
    """

    layer_names: tuple[str, ...]
    layer_start: NDArray[np.int64]
    weights_per_channel: NDArray[np.int64]
    bits: NDArray[np.int8]
    settings: AllocationSettings

    def __post_init__(self) -> None:
        """Bring arrays to their type, make them read-only and check that they fit together."""
        for name, dtype in (("layer_start", np.int64), ("weights_per_channel", np.int64), ("bits", np.int8)):
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "layer_names", tuple(self.layer_names))
        layers = len(self.layer_names)
        if self.layer_start.shape != (layers + 1,) or self.weights_per_channel.shape != (layers,):
            raise ShapeError(
                f"{layers} layers need layer_start of {layers + 1} and weights_per_channel of {layers} "
                f"entries, got {self.layer_start.shape} and {self.weights_per_channel.shape}"
            )
        if self.bits.shape != (int(self.layer_start[-1]),):
            raise ShapeError(f"bits must be ({int(self.layer_start[-1])},), got {self.bits.shape}")
        if self.bits.size and (self.bits.min() < BITS[0] or self.bits.max() > BITS[-1]):
            raise DataError(f"bits must be from {BITS[0]} to {BITS[-1]}")

    @classmethod
    def uniform(
        cls,
        layer_names: Sequence[str],
        channels: Sequence[int],
        weights_per_channel: Sequence[int],
        bits: int,
    ) -> BitPlan:
        """The same bits for every channel, without an error table: `channels` per layer."""
        start = np.concatenate([[0], np.cumsum(np.asarray(channels, dtype=np.int64))])
        return cls(
            layer_names=tuple(layer_names),
            layer_start=start,
            weights_per_channel=np.asarray(weights_per_channel, dtype=np.int64),
            bits=np.full(int(start[-1]), bits, dtype=np.int8),
            settings=AllocationSettings(policy="uniform", average_bits=bits),
        )

    @property
    def mean_bits(self) -> float:
        """Mean bits per weight: a channel counts as often as it has weights."""
        channels = np.diff(self.layer_start)
        total = int((self.weights_per_channel * channels).sum())
        return int((self.weights_per_channel * self._layer_sums()).sum()) / total

    @property
    def layer_mean_bits(self) -> NDArray[np.float64]:
        """(L,) mean bits of each layer."""
        return self._layer_sums() / np.diff(self.layer_start)

    def layer_bits(self, name: str) -> NDArray[np.int8]:
        """(C_l,) bits of the channels of one layer.

        Raises:
            DataError: the plan has no such layer.
        """
        if name not in self.layer_names:
            raise DataError(f"the bit plan has no layer {name!r}; it has {len(self.layer_names)} layers")
        index = self.layer_names.index(name)
        return self.bits[self.layer_start[index] : self.layer_start[index + 1]]

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits over layers and bits; how the plan came about does not enter."""
        digest = hashlib.sha256(json.dumps(self.layer_names).encode())
        for array in (self.layer_start, self.weights_per_channel, self.bits):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def to_json(self) -> str:
        """Compact text: one digit per channel."""
        layers = [
            {
                "name": name,
                "weights_per_channel": int(weights),
                "bits": "".join(map(str, self.layer_bits(name))),
            }
            for name, weights in zip(self.layer_names, self.weights_per_channel, strict=True)
        ]
        document = {"version": FORMAT_VERSION, "settings": self.settings.as_dict(), "layers": layers}
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BitPlan:
        """Read what `to_json` wrote.

        Raises:
            LoadError: the text is not a bit plan.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            version = document["version"]
            if version != FORMAT_VERSION:
                raise LoadError(
                    f"this is a bit plan of format {version}, this version reads {FORMAT_VERSION}"
                )
            layers = document["layers"]
            digits = [layer["bits"].encode("ascii") for layer in layers]
            return cls(
                layer_names=tuple(layer["name"] for layer in layers),
                layer_start=np.concatenate([[0], np.cumsum([len(row) for row in digits])]).astype(np.int64),
                weights_per_channel=np.array(
                    [layer["weights_per_channel"] for layer in layers], dtype=np.int64
                ),
                bits=(np.frombuffer(b"".join(digits), dtype=np.uint8) - ord("0")).astype(np.int8),
                settings=AllocationSettings(**document["settings"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise LoadError(f"the text is damaged or is not a bit plan ({err})") from err

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file; a crash half-way leaves an earlier file as it was."""
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        partial.write_text(self.to_json(), encoding="utf-8")
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | Path) -> BitPlan:
        """Read what `save` wrote.

        Raises:
            LoadError: the file is missing or damaged.
        """
        source = Path(path)
        try:
            return cls.from_json(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as err:
            raise LoadError(f"cannot read a bit plan from {source}: {err}") from err

    def _layer_sums(self) -> NDArray[np.int64]:
        return np.add.reduceat(self.bits.astype(np.int64), self.layer_start[:-1])
