"""Looking at the files of a model folder before anything is built from them.

Every function reads sizes, headers and JSON only. What it refuses, it refuses with one sentence that names
what was found and what would work. Weights come from safetensors alone: other formats can run code.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqdm_core.errors import LoadError
from mpqdm_core.safetensors_header import open_header
from mpqdm_core.strict_json import parse_json, shown

INDEX_FILE = "model_index.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
SHARDS_FILE = "diffusion_pytorch_model.safetensors.index.json"
PICKLE_ENDINGS = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5")
MAX_JSON_BYTES = 16 * 2**20  # the index of the largest sharded checkpoints has a few hundred kilobytes
NAMES_SHOWN = 6

Snapshot = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The safetensors files of one component, checked to be whole."""

    paths: tuple[Path, ...]
    elements: int  # numbers in all tensors together
    tensors: int


def listed(names: Iterable[str]) -> str:
    """The first few names, sorted, for a sentence."""
    ordered = sorted(names)
    first = ", ".join(shown(name) for name in ordered[:NAMES_SHOWN])
    left = len(ordered) - NAMES_SHOWN
    return (f"{first} and {left} more" if left > 0 else first) or "nothing"


def snapshot(folder: Path) -> Snapshot:
    """Size and time of change (ns) of every file in a folder and in its direct subfolders, by relative name.

    Raises:
        LoadError: the folder cannot be read.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        for path in sorted([*folder.iterdir(), *folder.glob("*/*")]):
            if path.is_file():
                status = path.stat()
                found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise LoadError(f"{folder} cannot be read: {error.strerror}") from error
    return found


def check_unchanged(folder: Path, before: Snapshot) -> None:
    """Refuse a folder that is not as it was when reading began.

    Raises:
        LoadError: a file came, went, or changed size or time.
    """
    after = snapshot(folder)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    if changed:
        raise LoadError(
            f"{folder} changed while it was being read ({listed(changed)}); load it again when it is complete"
        )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read one JSON object of a model folder.

    Raises:
        LoadError: it is missing, lies outside the folder, is no JSON, or no object.
    """
    path = inside(folder, name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_JSON_BYTES:
            kind = "is too large for a configuration" if stat.S_ISREG(status.st_mode) else "is no file"
            raise LoadError(f"{path} {kind}; copy or save the model again")
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LoadError(
            f"{folder} has no {name}, found {listed(os.listdir(folder))}; a folder written by "
            "pipeline.save_pretrained(...) has one"
        ) from error
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        raise LoadError(f"{path} is not valid JSON ({reason}); copy or save the model again") from error
    if not isinstance(value, dict):
        raise LoadError(
            f"{path} must hold a JSON object, found a {type(value).__name__}; save the model again"
        )
    return value


def inside(folder: Path, name: str) -> Path:
    """The path of a file of a folder, refused if it or a link on the way leads out of the folder.

    Raises:
        LoadError: it leads out.
    """
    path = folder / name
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, up to Python 3.12
        raise LoadError(f"{path} is a link that leads nowhere; copy the files into the folder") from error
    if not target.is_relative_to(_root(folder.resolve())):
        raise LoadError(
            f"{name} of {folder} leads out of the folder, to {target}; copy the files into it (cp -rL)"
        )
    return path


def _root(folder: Path) -> Path:
    """Where a folder's links may lead: inside it; in the Hub's cache, to the blobs of the same model."""
    snapshots = folder.parent
    in_cache = snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--")
    return snapshots.parent if in_cache else folder


def find_weights(folder: Path, component: str) -> WeightFiles:
    """Find the weights of one component and check that no file is cut short.

    Raises:
        LoadError: there are none as safetensors, or they are damaged.
    """
    part = inside(folder, component)
    if inside(folder, f"{component}/{WEIGHTS_FILE}").is_file():
        names = [WEIGHTS_FILE]
    elif inside(folder, f"{component}/{SHARDS_FILE}").is_file():
        names = _shards(folder, component)
    else:
        raise LoadError(_no_weights(part, component))
    paths = tuple(inside(folder, f"{component}/{name}") for name in names)
    headers = [open_header(path) for path in paths]
    return WeightFiles(
        paths=paths,
        elements=sum(header.elements for header in headers),
        tensors=sum(len(header.tensors) for header in headers),
    )


def check_safetensors(path: Path) -> int:
    """Count the numbers in a safetensors file by its header, and check that the file is as long as that says.

    Raises:
        LoadError: it is missing, cut short, or no safetensors file.
    """
    return open_header(path).elements


def _shards(folder: Path, component: str) -> list[str]:
    shards = read_json(folder, f"{component}/{SHARDS_FILE}").get("weight_map")
    files = list(shards.values()) if isinstance(shards, dict) else []
    if not files or not all(isinstance(name, str) and _is_weight_file(name) for name in files):
        raise LoadError(f"{folder / component / SHARDS_FILE} must name files beside it; save the model again")
    return sorted(set(files))


def _is_weight_file(name: str) -> bool:
    """Whether a shard's name is one of a safetensors file in the same folder."""
    return name == Path(name).name and name.endswith(".safetensors") and name.isprintable()


def _no_weights(part: Path, component: str) -> str:
    try:
        names = [entry.name for entry in part.iterdir()] if part.is_dir() else []
    except OSError as error:
        raise LoadError(f"{part} cannot be read: {error.strerror}") from error
    pickled = [name for name in names if name.endswith(PICKLE_ENDINGS)]
    if not part.is_dir():
        others = [entry.name for entry in part.parent.iterdir()]
        return f"{part.parent} has no folder {component}, found {listed(others)}; copy the whole model"
    if pickled and not any(name.endswith(".safetensors") for name in names):
        return (
            f"{part} has its weights only as {listed(pickled)}, which can run code when opened, so they are "
            "not read; convert it where you trust it: load the pipeline with diffusers and save_pretrained"
        )
    return (
        f"{part} has no {WEIGHTS_FILE}, found {listed(names)}; write it with pipeline.save_pretrained(folder)"
    )
