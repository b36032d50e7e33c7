"""Packed models on this server: what visitors exported or uploaded, the latest few, a folder each."""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pages._distill_adapters import ADAPTERS, Offered
from pages._packed_weights import PackedWeights
from pages._workspace import Recent, Workspace

MAX_KEPT = 6
TOKEN_BYTES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One packed model that a visitor looks at."""

    key: str
    place: Path  # its own folder; everything of it lies there
    name: str  # of the exported folder, or of the uploaded file
    packed: Any  # PackedFolder
    archive: Path | None  # to download; None: uploaded
    mismatch: str  # why it does not belong to the open model; empty: it does
    network: str = ""  # diffusers' class of the denoiser, where it is known
    part: str = ""  # the denoiser's folder, where it is known


STORE: Recent[Shown] = Recent(MAX_KEPT)


def new_place() -> Path:
    """An empty folder, after making room for it: folders of models that are not kept any more go."""
    kept = {shown.place for shown in STORE.values()}
    for folder in _root().iterdir():
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    place = _root() / secrets.token_hex(TOKEN_BYTES)
    place.mkdir()
    return place


def offer(shown: Shown, work: Workspace) -> Offered:
    """Let Compare draw with a packed model.

    Args:
        shown: made from the model of `work`.
        work: the visitor's.
    """
    bits = shown.packed.manifest.plan.mean_bits
    weights = PackedWeights(file=shown.packed.file, content_hash=shown.packed.manifest.tensors_sha256)
    offered = Offered(
        key=shown.key, title=f"packed, {bits:.2f} bits", work_key=work.key, changed={}, adapter=weights
    )
    ADAPTERS.put(shown.key, offered)
    return offered


@cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mpqdm-packed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
