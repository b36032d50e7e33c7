"""Models from the Hugging Face Hub: looked at before anything is fetched, then fetched into its cache.

Configurations, tokenizers and safetensors are fetched, nothing else: no code of a repository, no pickle.
Fetching shows bytes, can be stopped, and goes on where it was; every large file is checked against the hash
that the Hub gives for it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from mpqdm_core.errors import Cancelled, LoadError
from mpqdm_core.model_files import INDEX_FILE, listed
from mpqdm_core.progress import Report, silent

CONNECTION_ERROR: Any = vars(hub_errors)["HTTPError"]  # of whichever HTTP client the Hub library uses
SMALL_FILES = ("*.json", "*.txt", "*.model")  # configurations, schedules, tokenizers
VARIANT = re.compile(r"\.(fp16|fp32|bf16|non_ema|ema)(?=[.-])")  # weights stored again in another form
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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
    return repo_id, revision or None


def describe_hub_model(source: str, *, token: str | None = None, cache: Path | None = None) -> HubModel:
    """Ask the Hub what a repository holds: two small requests, no weights.

    Args:
        source: "owner/name", or "owner/name@revision".
        token: for gated and private models; None takes the HF_TOKEN of the environment.
        cache: folder of the Hub's cache; None takes its own.

    Raises:
        LoadError: there is no such model, it is gated, the Hub cannot be reached, or its weights are not
            safetensors.
    """
    repo_id, revision = parse_hub_source(source)
    endpoint = os.environ.get("HF_ENDPOINT")
    with _sentences(repo_id, revision):
        api = HfApi(endpoint=endpoint, token=token)
        info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=20)
        commit = str(info.sha)
        sizes = {entry.rfilename: int(entry.size or 0) for entry in info.siblings or []}
        hashes = {e.rfilename: e.lfs.sha256 for e in info.siblings or [] if e.lfs is not None}
        if INDEX_FILE not in sizes:
            raise LoadError(
                f"{repo_id} has no {INDEX_FILE}, found {listed(sizes)}: it is no diffusers pipeline"
            )
        path = hf_hub_download(
            repo_id, INDEX_FILE, revision=commit, endpoint=endpoint, token=token, cache_dir=cache
        )
    index = _index(Path(path), repo_id)
    files = _needed(repo_id, index, sizes)
    return HubModel(
        repo_id=repo_id,
        commit=commit,
        pipeline_class=str(index.get("_class_name", "")),
        files={name: sizes[name] for name in files},
        hashes={name: hashes[name] for name in files if name in hashes},
        licence=str(getattr(info.card_data, "license", None) or ""),
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
    with _sentences(model.repo_id, model.commit):
        folder = Path(
            snapshot_download(
                model.repo_id,
                revision=model.commit,
                allow_patterns=[_literally(name) for name in model.files],
                endpoint=os.environ.get("HF_ENDPOINT"),
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


def _index(path: Path, repo_id: str) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"the {INDEX_FILE} of {repo_id} cannot be read ({error})") from error
    if not isinstance(index, dict):
        raise LoadError(f"the {INDEX_FILE} of {repo_id} is no JSON object")
    return index


def _needed(repo_id: str, index: Mapping[str, Any], sizes: Mapping[str, int]) -> list[str]:
    """Names of the files to fetch: of every component, its small files and one form of its weights."""
    needed = [INDEX_FILE]
    components = [name for name, value in index.items() if isinstance(value, list) and all(value)]
    for component in components:
        inside = [name for name in sizes if name.startswith(f"{component}/") and name.count("/") == 1]
        weights = [name for name in inside if name.endswith(".safetensors")]
        plain = [name for name in weights if not VARIANT.search(name)]
        pickled = [name for name in inside if name.endswith((".bin", ".ckpt", ".pt", ".msgpack"))]
        if pickled and not weights:
            raise LoadError(
                f"{repo_id} has the weights of its {component} only as {listed(pickled)}, which can run code "
                "when opened, so they are not fetched; ask its authors for safetensors"
            )
        needed += [name for name in inside if any(fnmatchcase(name, pattern) for pattern in SMALL_FILES)]
        needed += plain or weights
    return sorted(set(needed))


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


@contextmanager
def _sentences(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub and the network answer into one sentence each."""
    where = f"{repo_id}@{revision}" if revision else repo_id
    try:
        yield
    except GatedRepoError as error:
        raise LoadError(
            f"{repo_id} is gated: accept its terms on its page, then set HF_TOKEN to a token of that account"
        ) from error
    except RevisionNotFoundError as error:
        raise LoadError(f"{repo_id} has no revision {revision!r}; its main one is 'main'") from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"there is no model {repo_id} on the Hub, or it is private: check the name, or set HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise LoadError(f"{repo_id!r} is no name of a model: {error}") from error
    except LocalEntryNotFoundError as error:  # before EntryNotFoundError: it is one of those
        raise LoadError(
            f"the Hub cannot be reached for {where}: check the connection and try again"
        ) from error
    except EntryNotFoundError as error:
        raise LoadError(f"{where} misses a file it lists: try again, or choose another revision") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise LoadError(_by_status(where, status)) from error
    except CONNECTION_ERROR as error:
        raise LoadError(
            f"the connection to the Hub broke ({type(error).__name__}): try again, it goes on"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LoadError(f"the disk is full: {where} does not fit") from error
        raise LoadError(f"{where} cannot be fetched: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoadError(f"the Hub's answer about {where} makes no sense ({error})") from error


def _by_status(where: str, status: int | None) -> str:
    if status == 401:
        return f"the Hub does not know the token it was given for {where}: check HF_TOKEN"
    if status == 403:
        return f"your account may not read {where}: ask its owners, or choose another model"
    if status == 429:
        return f"the Hub asks for a pause (too many requests) before {where}: try again in a few minutes"
    if status is not None and status >= 500:
        return f"the Hub is out of order (answer {status}) for {where}: try again later"
    return f"the Hub refused {where} (answer {status})"
