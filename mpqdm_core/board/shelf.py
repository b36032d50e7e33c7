"""Runs that ship with the page, and everything a visitor sees: those and their own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mpqdm_core.board.blobs import BlobFolder, StoreError, write_whole
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.store import RunStore
from mpqdm_core.errors import LoadError

RUNS = "runs.json"


class Shelf:
    """A folder of runs that is only read: `runs.json` and the files in `blobs`."""

    def __init__(self, folder: Path) -> None:
        """Read from `folder`; one that is not there is empty."""
        self.folder, self.blobs = folder, BlobFolder(folder / "blobs")

    def runs(self) -> tuple[KeptRun, ...]:
        """All runs; none where there is no folder.

        Raises:
            LoadError: the file is damaged.
        """
        path = self.folder / RUNS
        if not path.is_file():
            return ()
        try:
            documents = json.loads(path.read_text(encoding="utf-8"))
            return tuple(KeptRun.from_dict(document) for document in documents)
        except (OSError, ValueError, TypeError) as err:
            raise LoadError(f"{path} cannot be read: {err}") from err

    def write(self, runs: Sequence[KeptRun], source: RunStore) -> int:
        """Put runs and their files there; what lay there and belongs to none of them goes. Returns bytes."""
        used = {name for run in runs for name in run.blobs}
        for name in used:
            self.blobs.put(source.blobs.get(name))
        for path in self.blobs.folder.glob("*/*"):
            if path.name not in used:
                path.unlink()
        lines = ",\n".join(json.dumps(run.as_dict(), allow_nan=False) for run in runs)
        write_whole(self.folder / RUNS, f"[\n{lines}\n]\n".encode())
        return sum(os.path.getsize(path) for path in self.folder.rglob("*") if path.is_file())


class Library:
    """A visitor's own runs and the shipped ones."""

    def __init__(self, store: RunStore, shelf: Shelf) -> None:
        """Look into both."""
        self.store, self.shelf = store, shelf

    def runs(self) -> tuple[KeptRun, ...]:
        """Shipped runs, then one's own; of the same id, one's own."""
        own = self.store.runs()
        mine = {run.id for run in own}
        return (*(run for run in self.shelf.runs() if run.id not in mine), *own)

    def chosen(self, ids: Sequence[str]) -> tuple[KeptRun, ...]:
        """The runs with these ids, in that order; those that are gone are left out."""
        known = {run.id: run for run in self.runs()}
        return tuple(known[name] for name in ids if name in known)

    def is_own(self, run_id: str) -> bool:
        """Whether it can be deleted."""
        return self.store.get(run_id) is not None

    def read(self, name: str) -> bytes:
        """A file of a run by its hash.

        Raises:
            StoreError: it is missing or damaged.
        """
        try:
            return self.store.blobs.get(name)
        except StoreError:
            if not self.shelf.blobs.has(name):
                raise
            return self.shelf.blobs.get(name)
