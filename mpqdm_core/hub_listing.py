"""What a repository of the Hub lists, taken for what it is: names, sizes and hashes written by anyone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import INDEX_FILE, PICKLE_ENDINGS, listed
from mpqdm_core.model_parts import ModelPart, index_entries, one_form
from mpqdm_core.strict_json import shown

COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{64}")
FILE_NAME = re.compile(r"[\w][\w.+-]*")  # of one part of a path: no "..", no separators, nothing invisible
MAX_FILE_BYTES = 2**44
SMALL_FILES = ("*.json", "*.txt", "*.model")  # configurations, schedules, tokenizers


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a repository at one commit."""

    commit: str  # 40 hex digits; a branch may move, this does not
    sizes: Mapping[str, int]
    hashes: Mapping[str, str]  # sha256 of large files
    licence: str


def read_listing(answer: Mapping[str, Any]) -> Listing:
    """Read the Hub's answer about a model.

    Raises:
        ValueError: it is not what such answers are.
    """
    commit = answer["sha"]
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError(f"{shown(commit)} is no commit")
    sizes: dict[str, int] = {}
    hashes: dict[str, str] = {}
    for entry in answer["siblings"]:
        name, lfs = entry["rfilename"], entry.get("lfs")
        if not isinstance(name, str) or not all(FILE_NAME.fullmatch(part) for part in name.split("/")):
            continue  # not fetched, whatever it is: what is needed has plain names
        sizes[name] = _size(name, entry.get("size"))
        if lfs is not None:
            digest = lfs["sha256"]
            if not isinstance(digest, str) or not HASH.fullmatch(digest):
                raise ValueError(f"{shown(digest)} is no hash")
            hashes[name] = digest
    card = answer.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    names = [licence] if isinstance(licence, str) else licence if isinstance(licence, list) else []
    known = ", ".join(shown(name) for name in names if isinstance(name, str))
    return Listing(commit=commit, sizes=sizes, hashes=hashes, licence=shown(known))


def needed_files(repo_id: str, index: Mapping[str, Any], sizes: Mapping[str, int]) -> list[str]:
    """Names of the files to fetch: of every component, its small files and one form of its weights.

    Raises:
        LoadError: a component has its weights as pickles only.
    """
    needed = [INDEX_FILE]
    for component in index_entries(index):
        inside = [name for name in sizes if name.startswith(f"{component}/") and name.count("/") == 1]
        weights = weight_names(inside)
        pickled = [name for name in inside if name.endswith(PICKLE_ENDINGS)]
        if pickled and not weights:
            raise LoadError(
                f"{repo_id} has the weights of its {component} only as {listed(pickled)}, which can run code "
                "when opened, so they are not fetched; ask its authors for safetensors"
            )
        needed += [name for name in inside if any(fnmatchcase(name, pattern) for pattern in SMALL_FILES)]
        needed += weights
    return sorted(set(needed))


def weight_names(names: Sequence[str]) -> list[str]:
    """The weights among a component's files, in one form."""
    return one_form([name for name in names if name.endswith(".safetensors")])


def listed_parts(index: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[ModelPart, ...]:
    """The components, with the bytes of their weights."""
    return tuple(
        ModelPart(
            name=name,
            library=library,
            class_name=class_name,
            nbytes=sum(
                sizes[file] for file in weight_names([file for file in sizes if file.startswith(f"{name}/")])
            ),
            elements=None,
        )
        for name, (library, class_name) in index_entries(index).items()
    )


def _size(name: str, size: Any) -> int:
    if type(size) is not int or not 0 <= size < MAX_FILE_BYTES:
        raise ValueError(f"{shown(name)} has no size: {shown(size)}")
    return size
