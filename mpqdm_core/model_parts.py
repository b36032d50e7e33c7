"""The components of a pipeline's folder, by its index and the headers of its files; nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import INDEX_FILE, inside, read_json
from mpqdm_core.safetensors_header import open_header
from mpqdm_core.strict_json import shown

VARIANT = re.compile(r"\.(fp16|fp32|bf16|non_ema|ema)(?=[.-])")  # weights stored again in another form
NAME = re.compile(r"[A-Za-z][\w-]{0,63}")
ENTRIES = 2  # library and class
NOTES = ("class_names",)  # lists of names that are no components


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """One component of a pipeline."""

    name: str
    library: str
    class_name: str
    nbytes: int  # of its weights in files; 0 without weights
    elements: int | None  # numbers in its weights; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderParts:
    """What a pipeline's folder says it is."""

    pipeline_class: str
    parts: tuple[ModelPart, ...]

    @property
    def scheduler(self) -> str:
        """Class of the noise schedule, or nothing."""
        return next((part.class_name for part in self.parts if part.name == "scheduler"), "")

    @property
    def elements(self) -> int:
        """Numbers in all weights."""
        return sum(part.elements or 0 for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in files."""
        return sum(part.nbytes for part in self.parts)

    @property
    def largest_part(self) -> int:
        """Bytes of the weights of the largest component."""
        return max((part.nbytes for part in self.parts), default=0)


def index_entries(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Components in a model_index.json: name -> (library, class); parts that were left out are not listed."""
    found: dict[str, tuple[str, str]] = {}
    for name, entry in index.items():
        if name in NOTES or not isinstance(entry, list) or not NAME.fullmatch(name):
            continue
        if len(entry) != ENTRIES or entry == [None, None] or not all(isinstance(x, str) for x in entry):
            continue  # a list of names, or a component that was left out
        found[name] = (shown(entry[0]), shown(entry[1]))
    return found


def one_form(weights: Sequence[str]) -> list[str]:
    """Names of weights without those that store the same again in half precision or without averaging."""
    return [name for name in weights if not VARIANT.search(name)] or list(weights)


def describe_folder(folder: Path) -> FolderParts:
    """Look at a pipeline's folder: classes from its index, sizes from the headers of its safetensors files.

    Raises:
        LoadError: it has no index, or a file of weights is damaged.
    """
    index = read_json(folder, INDEX_FILE)
    parts = tuple(
        _part(folder, name, library, class_name)
        for name, (library, class_name) in index_entries(index).items()
    )
    return FolderParts(pipeline_class=shown(index.get("_class_name", "")), parts=parts)


def _part(folder: Path, name: str, library: str, class_name: str) -> ModelPart:
    place = inside(folder, name)
    try:
        names = [path.name for path in place.iterdir() if path.suffix == ".safetensors"]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise LoadError(f"{place} cannot be read: {error.strerror}") from error
    files = [inside(folder, f"{name}/{found}") for found in one_form(names)]
    headers = [open_header(file) for file in files]
    return ModelPart(
        name=name,
        library=library,
        class_name=class_name,
        nbytes=sum(file.stat().st_size for file in files),
        elements=sum(header.elements for header in headers) if headers else None,
    )
