"""Runs as a zip: written for others, and read from them with every suspicion.

    mpqdm-runs.json     format, version, ids
    runs/<id>.json      one document each
    blobs/<hash>        pictures (PNG) and bit plans (JSON)

Nothing is ever unpacked to a path that the zip names: entries with other names are refused, contents are
checked against their hashes and read by what they should be, and nothing is kept before all of it is good.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.blobs import writing
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.store import RunStore
from mpqdm_core.errors import LoadError, MpqdmError

FORMAT, VERSION = "mpqdm-runs", 1
HEAD = "mpqdm-runs.json"
ENTRY = re.compile(r"runs/[0-9a-f]{32}\.json|blobs/[0-9a-f]{64}|" + re.escape(HEAD))
MEBIBYTE = 2**20
MAX_PIXELS = 64 * 2**20
BROKEN_ZIP = (  # what zipfile and the decompressors it calls raise on changed bytes
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    ValueError,  # an offset before the beginning, a name that is no text
    IndexError,
    OverflowError,
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same runs give the same bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is read of a zip at most."""

    entries: int = 6_000
    document: int = 2 * MEBIBYTE  # unpacked
    file: int = 16 * MEBIBYTE
    total: int = 256 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a zip."""

    added: tuple[str, ...]  # ids
    known: tuple[str, ...]  # ids that were kept already; they stay as they are


def export_runs(runs: Sequence[KeptRun], read: Callable[[str], bytes], path: str | Path) -> Path:
    """Write runs with their files; `read` gives a file by its hash.

    Raises:
        LoadError: no run was named.
        StoreError: a file is missing, or the zip cannot be written.
    """
    target = Path(path)
    if not runs:
        raise LoadError("there is no run to export")
    partial = target.with_name(target.name + ".part")
    with writing(target.parent), zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        head = {"format": FORMAT, "version": VERSION, "runs": [run.id for run in runs]}
        archive.writestr(zipfile.ZipInfo(HEAD, EPOCH), json.dumps(head, indent=1))
        for run in runs:
            text = json.dumps(run.as_dict(), allow_nan=False)
            archive.writestr(zipfile.ZipInfo(f"runs/{run.id}.json", EPOCH), text, zipfile.ZIP_DEFLATED)
        for name in sorted({blob for run in runs for blob in run.blobs}):
            archive.writestr(zipfile.ZipInfo(f"blobs/{name}", EPOCH), read(name))
        archive.close()
        os.replace(partial, target)
    return target


def import_runs(store: RunStore, path: str | Path, limits: Limits | None = None) -> Imported:
    """Read runs from a zip, all of them or none.

    Raises:
        LoadError: it is no such zip, or anything in it is not as it should be.
        StoreError: the runs cannot be kept.
    """
    limits = limits or Limits()
    try:
        with zipfile.ZipFile(path) as archive:
            documents, blobs = _contents(archive, limits)
    except BROKEN_ZIP as err:
        raise LoadError(f"this is no zip of runs: {err}") from err
    runs = [_run(name, data) for name, data in sorted(documents.items())]
    known = {run.id for run in store.runs()}
    new = [run for run in runs if run.id not in known]
    for run in new:
        _check_files(run, blobs, store)
    for run in new:
        store.add(run, [blobs[name] for name in run.blobs if name in blobs])
    return Imported(
        added=tuple(run.id for run in new), known=tuple(run.id for run in runs if run.id in known)
    )


def _contents(archive: zipfile.ZipFile, limits: Limits) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Documents and files by name, everything within the limits."""
    entries = archive.infolist()
    if len(entries) > limits.entries:
        raise LoadError(f"the zip has {len(entries)} entries, at most {limits.entries} are read")
    documents: dict[str, bytes] = {}
    blobs: dict[str, bytes] = {}
    room = limits.total
    for entry in entries:
        name = entry.filename
        if not ENTRY.fullmatch(name):
            raise LoadError(f"the zip has an entry {name[:60]!r}, which does not belong into a zip of runs")
        longest = min(limits.file if name.startswith("blobs/") else limits.document, room)
        with archive.open(entry) as file:
            data = file.read(longest + 1)  # the size that the zip claims may be a lie
        if len(data) > longest:
            raise LoadError(f"{name[:60]} is larger than the {longest // 1024} KiB that are read of it")
        room -= len(data)
        if name == HEAD:
            _check_head(data)
        elif name.startswith("runs/"):
            documents[name[5:-5]] = data
        else:
            if hashlib.sha256(data).hexdigest() != name[6:]:
                raise LoadError(f"{name[:20]} is damaged: its contents do not match its name")
            blobs[name[6:]] = data
    if HEAD not in {entry.filename for entry in entries} or not documents:
        raise LoadError(f"this is no zip of runs: it needs {HEAD} and at least one run")
    return documents, blobs


def _check_head(data: bytes) -> None:
    head = _json(data, HEAD)
    version = head.get("version") if isinstance(head, dict) else None
    if not isinstance(head, dict) or head.get("format") != FORMAT or not isinstance(version, int):
        raise LoadError(f"{HEAD} does not say that this is a zip of runs")
    if version > VERSION:
        raise LoadError(f"the zip is of version {version}, this program reads up to {VERSION}: update it")


def _run(name: str, data: bytes) -> KeptRun:
    run = KeptRun.from_dict(_json(data, f"run {name[:8]}"))
    if run.id != name:
        raise LoadError(f"run {name[:8]} says that it is run {run.id[:8]}")
    return run


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise LoadError(f"{where} is no JSON: {err}") from err


def _check_files(run: KeptRun, blobs: Mapping[str, bytes], store: RunStore) -> None:
    for name in run.blobs:
        if name not in blobs and not store.blobs.has(name):
            raise LoadError(f"run {run.title[:60]!r} lacks one of its files, {name[:12]}")
    if run.pictures is not None:
        size = run.pictures.tile * len(run.pictures.names), run.pictures.tile
        for sheet in (run.pictures.drawn, run.pictures.reference):
            if sheet is not None and sheet in blobs:
                _check_picture(blobs[sheet], size, run.title)
    if run.plan is not None and run.plan in blobs:
        try:
            BitPlan.from_json(blobs[run.plan].decode("utf-8"))
        except (MpqdmError, ValueError, RecursionError) as err:
            raise LoadError(f"the bit plan of run {run.title[:60]!r} cannot be read: {err}") from err


def _check_picture(data: bytes, size: tuple[int, int], title: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise LoadError(f"the pictures of run {title[:60]!r} are too large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                fits = picture.size == size
                if fits:
                    picture.load()
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as err:
        raise LoadError(f"the pictures of run {title[:60]!r} cannot be read: {err}") from err
    if not fits:
        raise LoadError(f"the pictures of run {title[:60]!r} are not {size[0]} x {size[1]} pixels")
