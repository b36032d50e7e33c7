"""Asking the Hub: short answers with a limit on bytes and on seconds, and every refusal as one sentence."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there, not listed in __all__
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from mpqdm_core.errors import LoadError
from mpqdm_core.strict_json import parse_json, shown

CONNECTION_ERROR: Any = vars(hub_errors)["HTTPError"]  # of whichever HTTP client the Hub library uses
ANSWER_BYTES = 32 * 2**20  # of a listing; the longest have thousands of files
ANSWER_SECONDS = 60.0  # for one answer from its first byte to its last
SILENCE_SECONDS = 20.0  # without any byte
REASON_LENGTH = 160  # characters of another library's message
NONSENSE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    AssertionError,
)


def endpoint() -> str:
    """Address of the Hub: HF_ENDPOINT, as it is now."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def get_bytes(path: str, *, token: str | None, first: int | None = None) -> bytes:
    """Fetch a short answer.

    Args:
        path: of the address, from its first slash on.
        token: None takes the one of the environment.
        first: only so many bytes from the start, also of a server that sends more.

    Raises:
        LoadError: it is longer than answers are, or takes for ever.
    """
    headers = build_hf_headers(token=token)
    if first is not None:
        headers["Range"] = f"bytes=0-{first - 1}"
    limit, end = ANSWER_BYTES if first is None else first, time.monotonic() + ANSWER_SECONDS
    content = bytearray()
    address = f"{endpoint()}{path}"
    with get_session().stream("GET", address, headers=headers, timeout=SILENCE_SECONDS) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes():
            content += block
            if len(content) >= limit and first is not None:
                return bytes(content[:first])
            if len(content) > limit:
                raise LoadError(f"the Hub's answer to {shown(path)} has no end: it was given up")
            if time.monotonic() > end:
                raise LoadError(
                    f"the Hub takes longer than {ANSWER_SECONDS:.0f} s to answer: try again later"
                )
    return bytes(content)


def get_object(path: str, *, token: str | None) -> dict[str, Any]:
    """Fetch a JSON object.

    Raises:
        LoadError: see `get_bytes`.
        ValueError: it is no JSON object.
        RecursionError: it is nested too deeply.
    """
    value = parse_json(get_bytes(path, token=token).decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} instead of an object")
    return value


@contextmanager
def sentences(repo_id: str, revision: str | None) -> Iterator[None]:
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
        raise LoadError(f"{repo_id!r} is no name of a model: {_brief(error)}") from error
    except OfflineModeIsEnabled as error:
        raise LoadError(
            f"this server works offline (HF_HUB_OFFLINE is set), so {where} cannot be fetched"
        ) from error
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
        raise LoadError(f"{where} cannot be fetched: {_brief(error)}") from error
    except NONSENSE as error:
        raise LoadError(f"the Hub's answer about {where} makes no sense ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], REASON_LENGTH)


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
