"""Threads of long work give way, and only they."""

import os
import sys
import threading

import pytest

from mpqdm_core.thread_priority import LOWER, give_way


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_a_thread_gives_way_alone():
    seen = []

    def work():
        give_way()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [max(before, LOWER)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
