"""Models kept in memory for many people: loaded once, forgotten when there is no more room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

from torch import nn

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.loading import BUNDLED_FOLDER, load_denoiser, resolve_source
from mpqdm_core.model_files import Snapshot, snapshot

GIBIBYTE = 1024**3
Key = tuple[Path, tuple[tuple[str, tuple[int, int]], ...]]


class ModelCache:
    """Loads each model once, however many ask at once, and forgets the least recently used ones when full.

    A folder that has changed on disk is another model. A failed load is not remembered.
    """

    def __init__(self, max_bytes: int = 2 * GIBIBYTE, *, bundled: Path = BUNDLED_FOLDER) -> None:
        """Start empty.

        Args:
            max_bytes: of all weights together; the model loaded last is kept even if it alone is larger.
            bundled: where the bundled models are.

        Raises:
            SettingsError: `max_bytes` is not positive.
        """
        if max_bytes < 1:
            raise SettingsError(f"max_bytes must be at least 1, got {max_bytes}")
        self._max_bytes = max_bytes
        self._bundled = bundled
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Future[Denoiser]] = OrderedDict()  # least recently used first

    def get(self, source: str | Path) -> Denoiser:
        """The model, loaded now or before; a caller waits if another is loading the same one.

        Raises:
            LoadError: as `load_denoiser` does, for every caller who waited for it.
        """
        folder = resolve_source(source, bundled=self._bundled)
        key = _key(folder, snapshot(folder))
        with self._lock:
            entry = self._entries.get(key)
            mine = entry is None
            if entry is None:
                entry = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if mine:
            self._load(source, key, entry)
        return entry.result()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are kept."""
        with self._lock:
            return sum(_nbytes(entry.result()) for entry in self._entries.values() if entry.done())

    def _load(self, source: str | Path, key: Key, entry: Future[Denoiser]) -> None:
        try:
            denoiser = load_denoiser(source, bundled=self._bundled)
        except BaseException as error:  # whoever waits must be told, whatever it was
            with self._lock:
                self._entries.pop(key, None)
            entry.set_exception(error)
            return
        entry.set_result(denoiser)
        with self._lock:
            self._make_room(key)

    def _make_room(self, newest: Key) -> None:
        sizes = {key: _nbytes(entry.result()) for key, entry in self._entries.items() if entry.done()}
        total = sum(sizes.values())
        for key, size in sizes.items():
            if total <= self._max_bytes:
                return
            if key != newest:
                del self._entries[key]
                total -= size


def _key(folder: Path, files: Snapshot) -> Key:
    return folder.resolve(), tuple(sorted(files.items()))


def _nbytes(denoiser: Denoiser) -> int:
    modules = [part for part in denoiser.pipeline.components.values() if isinstance(part, nn.Module)]
    return sum(tensor.nbytes for module in modules for tensor in [*module.parameters(), *module.buffers()])
