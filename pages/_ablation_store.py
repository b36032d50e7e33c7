"""Whose runs a visitor sees: on one's own machine those on disk, on a shared server only one's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import gradio as gr

from mpqdm_core.board.shelf import Library, Shelf
from mpqdm_core.board.store import RunStore
from pages import _text

MAX_VISITOR_RUNS = 200


def shared_server() -> bool:
    """Whether strangers use this server: runs are then kept for each of them alone, and for a while."""
    return "SPACE_ID" in os.environ


def library(request: gr.Request | None) -> Library:
    """The runs of whoever asks."""
    return Library(store_of(request), Shelf(_text.ASSETS / "data" / "board"))


def store_of(request: gr.Request | None) -> RunStore:
    """Where the runs of whoever asks are kept."""
    if not shared_server():
        return RunStore()
    return RunStore(_folder(request), max_runs=MAX_VISITOR_RUNS)


def forget(request: gr.Request) -> None:
    """A visitor of a shared server has left: their runs go."""
    if shared_server():
        shutil.rmtree(_folder(request), ignore_errors=True)


def _folder(request: gr.Request | None) -> Path:
    session = "" if request is None else str(request.session_hash)
    return _visitors() / hashlib.sha256(session.encode()).hexdigest()[:24]


@cache
def _visitors() -> Path:
    """A folder of this process that nobody else can guess or read."""
    return Path(tempfile.mkdtemp(prefix="mpqdm-runs-"))
