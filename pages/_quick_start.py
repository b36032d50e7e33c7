"""Importing this imports gradio, in half the time: the first page waits for it.

For every component class gradio parses its own source again and rewrites a `.pyi` file beside it, at each
start. Nothing here reads those files. Gradio leaves a class alone whose file cannot be found, so that is what
it is told while it is imported; should a later gradio stop asking, this does nothing.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_collecting() -> Iterator[None]:
    """No garbage collection inside: what is made while starting stays, so looking for waste is time lost."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def _no_stub_files() -> Iterator[None]:
    find_file = inspect.getfile

    def getfile(thing: Any) -> str:
        if inspect.isclass(thing) and thing.__module__.startswith("gradio."):
            raise OSError("stub files are not needed")
        return find_file(thing)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = find_file


with no_collecting(), _no_stub_files():
    import gradio  # noqa: F401
