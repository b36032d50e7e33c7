"""Packed models as one file to give away, and opening one that somebody sent.

Nothing of somebody else's archive is written under a name it chose: the one file that holds the packed
denoiser is copied out, under a name of ours, and everything else stays inside.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from safetensors import SafetensorError
from safetensors.torch import load_file

from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import WEIGHTS_FILE, listed
from mpqdm_core.packing.manifest import MANIFEST_FILE, hash_tensors
from mpqdm_core.packing.sizes import PackedFolder, inspect_packed
from mpqdm_core.progress import Report, silent

MIB = 2**20
MAX_UPLOAD_BYTES = 300 * MIB  # of the denoiser's file
MAX_HEADER_BYTES = 16 * MIB  # JSON of somebody else: parsing takes many times as much memory
MAX_DIRECTORY_BYTES = MIB  # the list of an archive's files
ZIP_BEGIN = b"PK\x03\x04"
DENOISER_FILE = "denoiser.safetensors"
_HEADER_LENGTH_BYTES = 8  # a safetensors file opens with the length of its JSON
_CHUNK = MIB
_END = struct.Struct("<4s4H2LH")  # a zip file's last record: of its list of files, the size is field 5
_END_MARK, _END64_MARK = b"PK\x05\x06", b"PK\x06\x07"
_LONGEST_COMMENT = 2**16
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FAILURES = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OSError,
)


def zip_packed(folder: str | Path, target: str | Path, report: Report = silent) -> Path:
    """Write an exported folder as one zip file; weights are stored as they are, for they do not shrink.

    Args:
        folder: as `export_packed` wrote it; its name is the archive's top folder.
        target: the file; a crash half-way leaves an earlier one as it was.
        report: told every file; may raise `Cancelled`.

    Raises:
        LoadError: there is no such folder.
        Cancelled: raised by `report`.
    """
    source, path = Path(folder), Path(target)
    files = sorted(item for item in source.rglob("*") if item.is_file()) if source.is_dir() else []
    if not files:
        raise LoadError(f"{source} is no folder with files: export a model first")
    partial = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for done, item in enumerate(files):
                report(done, len(files), f"writing {item.name}")
                packed = zipfile.ZIP_STORED if item.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
                archive.write(item, PurePosixPath(source.name, *item.relative_to(source).parts), packed)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def open_upload(
    source: str | Path, folder: str | Path, *, limit_bytes: int = MAX_UPLOAD_BYTES
) -> PackedFolder:
    """Look at a packed model that somebody sent, without building anything from it.

    Args:
        source: a zip file as `zip_packed` writes it, or the denoiser's safetensors file alone.
        folder: where a copy of the denoiser's file is put; of nothing else.
        limit_bytes: the largest file that is taken.

    Returns:
        what the file holds; every tensor was compared with the manifest's hash.

    Raises:
        LoadError: it is too large, damaged, of a newer version, or no packed model.
    """
    path, copy = Path(source), Path(folder) / DENOISER_FILE
    try:
        with path.open("rb") as file:
            zipped = file.read(len(ZIP_BEGIN)) == ZIP_BEGIN
        copy.parent.mkdir(parents=True, exist_ok=True)
        if zipped:
            _extract(path, copy, limit_bytes)
        else:
            with path.open("rb") as file:
                _copy(file, copy, limit_bytes, path.name)
        _check_header(copy)
        found = inspect_packed(copy)
        if hash_tensors(load_file(copy)) != found.manifest.tensors_sha256:
            raise LoadError(f"{copy} is damaged: its tensors are not those of its manifest; send it again")
    except (SafetensorError, *_FAILURES) as error:
        copy.unlink(missing_ok=True)
        raise LoadError(f"{path.name} cannot be read ({_first_line(error)}); send it again") from error
    except LoadError as error:  # in words of the sender's, who knows nothing of our folders
        copy.unlink(missing_ok=True)
        words = str(error).replace(str(copy), path.name).replace(str(path.parent) + os.sep, "")
        raise LoadError(words) from error
    return found


def _extract(path: Path, copy: Path, limit_bytes: int) -> None:
    """Copy the packed denoiser's file out of an archive."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        found = [
            info
            for info in archive.infolist()
            if PurePosixPath(info.filename).name == WEIGHTS_FILE
            and str(PurePosixPath(info.filename).with_name(MANIFEST_FILE)) in names
        ]
        if len(found) != 1:
            inside = listed({PurePosixPath(name).name for name in names if not name.endswith("/")})
            raise LoadError(
                f"{path.name} holds {len(found) or 'no'} packed denoiser{'s' if found else ''} "
                f"({WEIGHTS_FILE} beside {MANIFEST_FILE}), found {inside}; send one exported model"
            )
        if found[0].compress_type not in _READABLE or found[0].flag_bits & 1:
            raise LoadError(f"{path.name} is encrypted or packed in an unusual way; zip the folder again")
        with archive.open(found[0]) as file:
            _copy(file, copy, limit_bytes, path.name)


def _check_directory(path: Path) -> None:
    """Refuse an archive whose list of files alone would take much memory, before it is read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
        tail = file.read()
    place = tail.rfind(_END_MARK)
    if place < 0 or len(tail) - place < _END.size:
        raise LoadError(f"{path.name} is cut short; send it again")
    if _END.unpack_from(tail, place)[5] > MAX_DIRECTORY_BYTES or _END64_MARK in tail[:place][-20:]:
        raise LoadError(f"{path.name} lists too many files to be one exported model")


def _copy(file: IO[bytes], copy: Path, limit_bytes: int, name: str) -> None:
    """Copy at most so many bytes: what an archive says about its own sizes need not be true."""
    copied = 0
    with copy.open("wb") as target:
        while chunk := file.read(_CHUNK):
            copied += len(chunk)
            if copied > limit_bytes:
                raise LoadError(
                    f"the denoiser in {name} is larger than {limit_bytes / MIB:g} MiB, the most taken here; "
                    "look at it with mpqdm_core.inspect_packed on your own machine"
                )
            target.write(chunk)


def _check_header(path: Path) -> None:
    """Refuse a file whose JSON is unreasonably long; every other check comes later."""
    with path.open("rb") as file:
        opening = file.read(_HEADER_LENGTH_BYTES)
    length = int.from_bytes(opening, "little")
    if MAX_HEADER_BYTES < length < path.stat().st_size:
        raise LoadError(f"{path} has {length / MIB:.0f} MiB of description, up to 16 MiB are read")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
