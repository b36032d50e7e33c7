"""Models from the Hugging Face Hub: looked at before anything is fetched, then fetched into its cache.

Configurations, tokenizers and safetensors are fetched, nothing else: no code of a repository, no pickle.
Fetching shows bytes, can be stopped, and goes on where it was; every large file is checked against the hash
that the Hub gives for it.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from tqdm.auto import tqdm

from mpqdm_core.errors import Cancelled, LoadError
from mpqdm_core.hub_listing import Listing, listed_parts, needed_files, read_listing
from mpqdm_core.hub_requests import endpoint, get_bytes, get_object, sentences
from mpqdm_core.memory import gigabytes
from mpqdm_core.model_files import INDEX_FILE, listed
from mpqdm_core.model_parts import ModelPart
from mpqdm_core.progress import Report, silent
from mpqdm_core.safetensors_header import LENGTH_BYTES, header_length, read_header

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
REVISION = re.compile(r"[\w][\w./-]{0,199}")
INDEX_BYTES = 2**20
OPENING_BYTES = 2**17  # holds most headers whole
HASH_BLOCK = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A repository at one commit, and which of its files would be fetched."""

    repo_id: str
    commit: str  # 40 hex digits; a branch may move, this does not
    pipeline_class: str  # _class_name in model_index.json
    files: Mapping[str, int]  # name -> bytes
    hashes: Mapping[str, str]  # name -> sha256 of a large file
    licence: str  # as its card says; "" if it does not
    parts: tuple[ModelPart, ...]  # components, their weights counted in bytes

    @property
    def nbytes(self) -> int:
        """Bytes to fetch, files that are already here included."""
        return sum(self.files.values())


def parse_hub_source(source: str) -> tuple[str, str | None]:
    """Split "owner/name" or "owner/name@revision".

    Raises:
        LoadError: it is neither.
    """
    repo_id, _, revision = source.strip().partition("@")
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise LoadError(f"{source[:80]!r} is no model of the Hub: write owner/name or owner/name@revision")
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise LoadError(f"{revision[:80]!r} is no revision: write a branch, a tag or a commit")
    return repo_id, revision or None


def describe_hub_model(source: str, *, token: str | None = None) -> HubModel:
    """Ask the Hub what a repository holds: two small requests, no weights.

    Args:
        source: "owner/name", or "owner/name@revision".
        token: for gated and private models; None takes the HF_TOKEN of the environment.

    Raises:
        LoadError: there is no such model, it is gated, the Hub cannot be reached, or its weights are not
            safetensors.
    """
    repo_id, revision = parse_hub_source(source)
    with sentences(repo_id, revision):
        place = f"/revision/{quote(revision, safe='')}" if revision else ""
        listing = read_listing(get_object(f"/api/models/{repo_id}{place}?blobs=true", token=token))
        index = _index(repo_id, listing, token)
        files = needed_files(repo_id, index, listing.sizes)
    return HubModel(
        repo_id=repo_id,
        commit=listing.commit,
        pipeline_class=index["_class_name"] if isinstance(index.get("_class_name"), str) else "",
        files={name: listing.sizes[name] for name in files},
        hashes={name: listing.hashes[name] for name in files if name in listing.hashes},
        licence=listing.licence,
        parts=listed_parts(index, listing.sizes),
    )


def count_elements(model: HubModel, *, token: str | None = None, report: Report = silent) -> HubModel:
    """The same model with the numbers in its weights counted, by the headers of its files alone.

    Args:
        model: from `describe_hub_model`.
        token: see there.
        report: told for every file; may raise `Cancelled`.

    Raises:
        LoadError: a header cannot be read.
        Cancelled: raised by `report`.
    """
    weights = [name for name in model.files if name.endswith(".safetensors")]
    elements: dict[str, int] = {}
    with sentences(model.repo_id, model.commit):
        for done, name in enumerate(weights):
            report(done, len(weights), f"looking at {name}")
            part = name.split("/")[0]
            elements[part] = elements.get(part, 0) + _remote_elements(model, name, token)
    parts = tuple(replace(part, elements=elements.get(part.name)) for part in model.parts)
    return replace(model, parts=parts)


def missing_bytes(model: HubModel, cache: Path | None = None) -> int:
    """Bytes that are not in the cache yet; a file that came in part counts whole."""
    return sum(
        size
        for name, size in model.files.items()
        if not isinstance(
            try_to_load_from_cache(model.repo_id, name, cache_dir=cache, revision=model.commit), str
        )
    )


def fetch_hub_model(
    model: HubModel, *, token: str | None = None, cache: Path | None = None, report: Report = silent
) -> Path:
    """Fetch a model's files into the Hub's cache, or find them there.

    Args:
        model: from `describe_hub_model`.
        token: see there.
        cache: see there.
        report: told in MiB; `Cancelled` raised by it stops, and the next call goes on from there.

    Returns:
        A diffusers folder.

    Raises:
        LoadError: the connection broke, a file is not what the Hub says it is, or the disk is full.
        Cancelled: raised by `report`.
    """
    _check_disk(model, cache)
    total = max(1, model.nbytes >> 20)
    stopped: list[Cancelled] = []

    class Bytes(tqdm):  # type: ignore[misc]
        """Passes the count of bytes on instead of drawing a bar."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            if stopped:
                raise stopped[0]
            result: bool | None = super().update(n)
            if self.unit == "B" and "ownload" in (self.desc or ""):
                try:
                    report(min(int(self.n) >> 20, total), total, f"fetching {model.repo_id}")
                except Cancelled as cancelled:
                    stopped.append(cancelled)
                    raise
            return result

    report(0, total, f"fetching {model.repo_id}")
    with sentences(model.repo_id, model.commit):
        folder = Path(
            snapshot_download(
                model.repo_id,
                revision=model.commit,
                allow_patterns=[_literally(name) for name in model.files],
                endpoint=endpoint(),
                token=token,
                cache_dir=cache,
                tqdm_class=Bytes,
                max_workers=4,
            )
        )
    if stopped:
        raise stopped[0]
    _check_files(model, folder)
    report(total, total, f"fetched {model.repo_id}")
    return folder


def _index(repo_id: str, listing: Listing, token: str | None) -> dict[str, Any]:
    """The model_index.json of a repository, read from the Hub itself."""
    size = listing.sizes.get(INDEX_FILE)
    if size is None:
        raise LoadError(
            f"{repo_id} has no {INDEX_FILE}, found {listed(listing.sizes)}: it is no diffusers pipeline"
        )
    if size > INDEX_BYTES:
        raise LoadError(f"the {INDEX_FILE} of {repo_id} has {gigabytes(size)}: it is no index")
    try:
        return get_object(f"/{repo_id}/resolve/{listing.commit}/{INDEX_FILE}", token=token)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"the {INDEX_FILE} of {repo_id} is no JSON object that can be read") from error


def _remote_elements(model: HubModel, name: str, token: str | None) -> int:
    path = f"/{model.repo_id}/resolve/{model.commit}/{quote(name)}"
    content = get_bytes(path, token=token, first=OPENING_BYTES)
    length = header_length(content)
    if LENGTH_BYTES + length > len(content) == OPENING_BYTES:
        content = get_bytes(path, token=token, first=LENGTH_BYTES + length)
    facts = read_header(content[LENGTH_BYTES : LENGTH_BYTES + length], f"{name} of {model.repo_id}")
    return facts.elements


def _check_disk(model: HubModel, cache: Path | None) -> None:
    place = Path(cache or constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free, wanted = shutil.disk_usage(place).free, missing_bytes(model, cache)
    if wanted > free:
        raise LoadError(
            f"{model.repo_id} needs {gigabytes(wanted)} on the disk and {gigabytes(free)} are free; "
            "make room or choose a smaller model"
        )


def _check_files(model: HubModel, folder: Path) -> None:
    """Compare large files with the hashes the Hub gives; one that differs is thrown away."""
    for name, size in model.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise LoadError(f"{name} of {model.repo_id} did not arrive whole: fetch the model again")
        wanted = model.hashes.get(name)
        if wanted is None:
            continue
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
        if digest.hexdigest() != wanted:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise LoadError(
                f"{name} of {model.repo_id} is not the file that the Hub announces (its hash differs): "
                "it was thrown away; fetch the model again"
            )


def _literally(name: str) -> str:
    """A pattern that matches this name only."""
    return re.sub(r"([*?\[])", r"[\1]", name)
