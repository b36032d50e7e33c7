"""Models kept in memory for many people: loaded once, forgotten when there is no more room."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from torch import nn

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.loading import BUNDLED_FOLDER, load_denoiser, resolve_source
from mpqdm_core.looking import look_at_folder
from mpqdm_core.memory import available_memory
from mpqdm_core.model_files import INDEX_FILE, Snapshot, snapshot

GIBIBYTE = 1024**3
Key = tuple[Path, tuple[tuple[str, tuple[int, int]], ...]]


class ModelCache:
    """Loads each model once, however many ask at once, and forgets the least recently used ones when full.

    A folder that has changed on disk is another model. A failed load is not remembered.
    """

    def __init__(
        self,
        max_bytes: int = 2 * GIBIBYTE,
        *,
        bundled: Path = BUNDLED_FOLDER,
        on_forget: Callable[[Denoiser], None] | None = None,
    ) -> None:
        """Start empty.

        Args:
            max_bytes: of all weights together; the model loaded last is kept even if it alone is larger.
            bundled: where the bundled models are.
            on_forget: told of every model that is forgotten, so that others let go of it too.

        Raises:
            SettingsError: `max_bytes` is not positive.
        """
        if max_bytes < 1:
            raise SettingsError(f"max_bytes must be at least 1, got {max_bytes}")
        self._max_bytes = max_bytes
        self._bundled = bundled
        self._on_forget = on_forget
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
            return sum(weight_bytes(entry.result()) for entry in self._entries.values() if entry.done())

    @property
    def max_bytes(self) -> int:
        """The limit."""
        return self._max_bytes

    def models(self) -> tuple[Denoiser, ...]:
        """The models that are kept, the most recently used last."""
        with self._lock:
            return tuple(entry.result() for entry in self._entries.values() if entry.done())

    def holds(self, source: str | Path) -> bool:
        """Whether `get` would return without loading.

        Raises:
            LoadError: the source means no folder.
        """
        folder = resolve_source(source, bundled=self._bundled)
        key = _key(folder, snapshot(folder))
        with self._lock:
            return key in self._entries

    def forget(self, denoiser: Denoiser) -> bool:
        """Let go of a model; whoever works with it goes on. False if it was not kept."""
        with self._lock:
            found = [
                key for key, entry in self._entries.items() if entry.done() and entry.result() is denoiser
            ]
            for key in found:
                del self._entries[key]
        self._tell([denoiser] if found else [])
        return bool(found)

    def _load(self, source: str | Path, key: Key, entry: Future[Denoiser]) -> None:
        try:
            self._check_memory(key[0])
            denoiser = load_denoiser(source, bundled=self._bundled)
        except BaseException as error:  # whoever waits must be told, whatever it was
            with self._lock:
                self._entries.pop(key, None)
            entry.set_exception(error)
            return
        entry.set_result(denoiser)
        with self._lock:
            forgotten = self._make_room(key)
        self._tell(forgotten)

    def _check_memory(self, folder: Path) -> None:
        """Forget models until this one fits into memory, or refuse it before anything of it is read."""
        if not (folder / INDEX_FILE).is_file():
            return  # loading says what is missing
        need = look_at_folder(folder).need
        while not need.fits and (kept := self.models()):
            self.forget(kept[0])
            gc.collect()
            need = replace(need, available=available_memory())
        need.check(folder.name)

    def _make_room(self, newest: Key) -> list[Denoiser]:
        """Forget until the rest fits; the models that went."""
        models = {key: entry.result() for key, entry in self._entries.items() if entry.done()}
        total = sum(weight_bytes(denoiser) for denoiser in models.values())
        gone: list[Denoiser] = []
        for key, denoiser in models.items():
            if total <= self._max_bytes:
                break
            if key != newest:
                del self._entries[key]
                total -= weight_bytes(denoiser)
                gone.append(denoiser)
        return gone

    def _tell(self, forgotten: list[Denoiser]) -> None:
        if self._on_forget is not None:
            for denoiser in forgotten:
                self._on_forget(denoiser)


def weight_bytes(denoiser: Denoiser) -> int:
    """Bytes of all weights of a model's pipeline in memory."""
    modules = [part for part in denoiser.pipeline.components.values() if isinstance(part, nn.Module)]
    return sum(tensor.nbytes for module in modules for tensor in [*module.parameters(), *module.buffers()])


def _key(folder: Path, files: Snapshot) -> Key:
    return folder.resolve(), tuple(sorted(files.items()))
