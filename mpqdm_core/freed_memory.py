"""Memory that a long job has freed goes back to the system, so that a server does not grow with every job."""

from __future__ import annotations

import ctypes
import sys

ARENAS = 2  # glibc makes up to eight a core, and what one thread freed another's arena cannot use
_M_ARENA_MAX = -8  # of malloc.h


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it has the two functions that are used here."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


def share_arenas() -> None:
    """Let all threads allocate from a few arenas; call it before there are threads. Linux with glibc only."""
    if (library := _glibc()) is not None:
        library.mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory to the system. Linux with glibc only; elsewhere the system's own ways have to do."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)
