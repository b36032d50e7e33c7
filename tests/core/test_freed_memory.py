"""Freed memory goes back to the system, though something above it is still in use."""

import sys

import numpy as np
import pytest

from mpqdm_core.freed_memory import give_back

BLOCK, BLOCKS = 2**16, 1600  # small enough to come from the heap, 100 MiB together


def resident_mib():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(float(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed; others have their own ways")
def test_what_was_freed_between_blocks_in_use_is_given_back():
    blocks = [np.ones(BLOCK, dtype=np.uint8) for _ in range(BLOCKS)]
    kept = blocks[::16]  # in between, so that the heap cannot simply shrink from its end
    del blocks
    before = resident_mib()
    give_back()
    assert before - resident_mib() > 0.8 * BLOCK * BLOCKS / 2**20
    assert all(block.all() for block in kept)
