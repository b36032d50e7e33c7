"""Import what handlers need later, once the first page is out: torch alone takes seconds."""

from __future__ import annotations

import importlib
import logging
import threading

LATER = (
    "torch",
    "mpqdm_core.board.laboratory",
    "mpqdm_core.finetune_run",
    "mpqdm_core.loading",
    "mpqdm_core.quantization",
    "mpqdm_core.sampling",
)
PAUSE_S = 15.0  # the first page comes first: imports hold the interpreter lock for seconds


# Two threads that import diffusers at the same moment find it half made.
IMPORTING = threading.RLock()


def warm_up(pause: float = PAUSE_S) -> threading.Timer:
    """Start importing in `pause` seconds, in a thread that does not keep the program alive."""
    timer = threading.Timer(pause, import_all)
    timer.daemon = True
    timer.start()
    return timer


def import_all() -> None:
    """Import everything now, or wait until whoever has begun is done."""
    for name in LATER:
        try:
            with IMPORTING:
                importlib.import_module(name)
        except ImportError:  # the handler that needs it will say so to the visitor who asked
            logging.getLogger(__name__).exception("could not import %s ahead of time", name)
