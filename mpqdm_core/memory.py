"""Memory of this machine, and what opening a model takes of it, told before anything is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mpqdm_core.errors import LoadError

GB = 10**9
MB = 10**6
WORKING_BYTES = 500 * MB  # one denoising call of a picture, and the libraries themselves
FLOAT32 = 4  # bytes: what weights become when they are opened
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # limits of a container, where there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What opening a model takes, beside what is free."""

    needed: int  # bytes
    available: int  # bytes

    @property
    def fits(self) -> bool:
        """Whether it can be opened."""
        return self.needed <= self.available

    def check(self, name: str) -> None:
        """Refuse to open what does not fit.

        Raises:
            LoadError: it does not.
        """
        if not self.fits:
            raise LoadError(
                f"{name} needs about {gigabytes(self.needed)} of memory and {gigabytes(self.available)} are "
                "free; unload other models or take a smaller one, or look at its statistics from the files"
            )


def memory_need(elements: int, largest_part: int, *, available: int | None = None) -> MemoryNeed:
    """What opening weights takes: all of them in float32, and the file of the largest part beside it.

    Args:
        elements: numbers in all weights.
        largest_part: bytes of the weights of the largest component; they are read while it is being filled.
        available: instead of what this machine has free.
    """
    needed = FLOAT32 * elements + largest_part + WORKING_BYTES
    return MemoryNeed(needed=needed, available=available_memory() if available is None else available)


def available_memory() -> int:
    """Bytes that can be used without swapping, by the machine and by the limit of a container."""
    free = _meminfo("MemAvailable") or _pages("SC_AVPHYS_PAGES")
    limit, used = _number(GROUP / "memory.max"), _number(GROUP / "memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _cached()))


def total_memory() -> int:
    """Bytes of memory of this machine, or of its container."""
    total = _meminfo("MemTotal") or _pages("SC_PHYS_PAGES")
    limit = _number(GROUP / "memory.max")
    return total if limit is None else min(total, limit)


def gigabytes(nbytes: int) -> str:
    """Bytes for a sentence: "3.4 GB", or "12 MB" below a tenth of one."""
    if nbytes < GB / 10:
        return f"{max(nbytes / MB, 0.1):.1f} MB" if nbytes < 10 * MB else f"{nbytes / MB:.0f} MB"
    return f"{nbytes / GB:.1f} GB" if nbytes < 100 * GB else f"{nbytes / GB:,.0f} GB"


def _meminfo(name: str) -> int:
    """A line of /proc/meminfo in bytes, 0 where there is none."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith(f"{name}:")]
    return int(found[0][1]) * 1024 if found else 0


def _pages(name: str) -> int:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not on this system: as good as no limit
        return 2**62


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached() -> int:
    """Bytes of files that a container keeps in memory and gives back when asked."""
    try:
        lines = (GROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith("inactive_file ")]
    return int(found[0][1]) if found else 0
