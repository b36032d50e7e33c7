"""Long work beside a server's short answers: its threads give way on a machine with few cores."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWER = 10  # of the 19 steps of "nice" there are
SWITCH_S = 1e-3  # Python's default is 5 ms: a short answer waits that long several times beside a long job


def give_way() -> None:
    """Let the calling thread, and those torch starts from it, run when no other thread wants the processor.

    Linux only, where every thread has a priority of its own; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, max(LOWER, os.getpriority(os.PRIO_PROCESS, thread)))


def take_turns_often() -> None:
    """Let Python change more often between the threads of this process that compute."""
    sys.setswitchinterval(SWITCH_S)
