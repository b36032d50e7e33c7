"""A file's bytes as they lie in the system's cache: looked at without copying them first.

Copying would take as long as looking at everything once. A mapping has one danger: touching what was cut off
in the meantime ends the process. So the file is asked right before every look, a few megabytes long, whether
it still is what it was. Pages that were looked at count as the process's own until the system needs the room.
"""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from mpqdm_core.errors import LoadError


class MappedFile:
    """Bytes of a file that is not to change while they are looked at."""

    def __init__(self, path: Path, changed_ns: int) -> None:
        """Map it; nothing is read.

        Args:
            path: of a file that is not empty.
            changed_ns: when it was last written to, as far as the caller knows.

        Raises:
            LoadError: it cannot be opened, or was written to since.
        """
        self._name, self._changed_ns = path.name, changed_ns
        try:
            with ExitStack() as failing:
                self._file = failing.enter_context(path.open("rb", buffering=0))
                # A private copy of what is written, which is nothing: torch warns of read-only memory.
                self._mapping = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
                failing.pop_all()
        except (OSError, ValueError) as error:  # ValueError: empty by now
            raise LoadError(f"{path.name} cannot be read any more ({error}); copy it again") from error

    def __enter__(self) -> Self:
        """Use it in a block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the file; the mapping ends with the last tensor that looks at it."""
        self._file.close()

    def bytes(self, begin: int, length: int) -> Tensor:
        """A part of the file, (length,) uint8; to be looked at right away.

        Raises:
            LoadError: the file was written to.
        """
        if os.fstat(self._file.fileno()).st_mtime_ns != self._changed_ns:
            raise LoadError(f"{self._name} was written to while it was read; open it again")
        return torch.frombuffer(self._mapping, dtype=torch.uint8, count=length, offset=begin)
