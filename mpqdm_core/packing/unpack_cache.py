"""Unpacked weights that are kept between uses, up to a limit."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor

from mpqdm_core.errors import SettingsError

DEFAULT_CACHE_MIB = 64
_MIB = 2**20


class UnpackCache:
    """Keeps the unpacked weights of as many layers as fit a limit; shared by the layers of one network.

    The first to come stay: a network runs its layers in a circle, and a cache that drops the oldest would
    drop every weight just before its next use.
    """

    def __init__(self, limit_mib: int = DEFAULT_CACHE_MIB) -> None:
        """Start empty.

        Args:
            limit_mib: 0 keeps nothing.

        Raises:
            SettingsError: below 0.
        """
        if limit_mib < 0:
            raise SettingsError(f"the cache of unpacked weights must be 0 MiB or more, got {limit_mib}")
        self.limit_mib = limit_mib
        self._weights: dict[int, Tensor] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights it keeps now."""
        return self._bytes

    def get(self, key: int) -> Tensor | None:
        """The weight of a layer, if it is kept."""
        return self._weights.get(key)

    def offer(self, key: int, weight: Tensor) -> None:
        """Keep a weight if there is room for it."""
        with self._lock:
            if key not in self._weights and self._bytes + weight.nbytes <= self.limit_mib * _MIB:
                self._weights[key] = weight
                self._bytes += weight.nbytes

    def drop(self, key: int) -> None:
        """Forget the weight of a layer."""
        with self._lock:
            dropped = self._weights.pop(key, None)
            self._bytes -= 0 if dropped is None else dropped.nbytes

    def __getstate__(self) -> dict[str, Any]:
        # Copies of a network start with an empty cache: a lock does not travel, weights are unpacked again.
        return {"limit_mib": self.limit_mib}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["limit_mib"])  # type: ignore[misc]
