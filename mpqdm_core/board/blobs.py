"""Files found by the hash of their contents: pictures and bit plans of the runs."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpqdm_core.errors import MpqdmError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSED_S = 3600.0  # a file younger than this may belong to a run that is being written


class StoreError(MpqdmError):
    """Runs cannot be written or read; what was kept before is as it was."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals into sentences.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as err:
        if err.errno in FULL:
            raise StoreError(
                f"the disk that holds {folder} is full: make room and try again; "
                "every run kept so far is safe"
            ) from err
        raise StoreError(
            f"cannot write to {folder}: {err.strerror or err}; set MPQDM_RUNS to a folder that can be written"
        ) from err


def write_whole(target: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whoever else writes it at the same moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


class BlobFolder:
    """Writes each content once."""

    def __init__(self, folder: Path) -> None:
        """Work in `folder`, which is made when first needed."""
        self.folder = folder

    def put(self, data: bytes) -> str:
        """Keep `data`; return its hash, 64 hexadecimal digits.

        Raises:
            StoreError: it cannot be written.
        """
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        with writing(self.folder):
            if not path.exists() or path.stat().st_size != len(data):
                write_whole(path, data)
        return name

    def get(self, name: str) -> bytes:
        """What was kept under a hash.

        Raises:
            StoreError: the file is missing or was changed.
        """
        try:
            data = self.path(name).read_bytes()
        except OSError as err:
            raise StoreError(f"the file {name[:12]} of a run is missing: {err.strerror or err}") from err
        if hashlib.sha256(data).hexdigest() != name:
            raise StoreError(f"the file {name[:12]} of a run is damaged: its contents do not match its name")
        return data

    def has(self, name: str) -> bool:
        """Whether something is kept under a hash."""
        return self.path(name).is_file()

    def path(self, name: str) -> Path:
        """Where a hash is kept."""
        return self.folder / name[:2] / name

    def sweep(self, used: Collection[str]) -> int:
        """Delete what no run uses and is not being written right now; return how many files went."""
        gone, before = 0, time.time() - UNUSED_S
        for path in self.folder.glob("*/*"):
            with suppress(OSError):  # another process may have been faster
                if path.name not in used and path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone
