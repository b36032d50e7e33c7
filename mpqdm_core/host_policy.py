"""What a server lets its visitors open: everything on one's own machine, a list of models on a shared host.

A Hugging Face Space (`SPACE_ID` is set) is shared by strangers: nobody may name a path of it, and it fetches
only models of a list, up to a size. Environment variables change this:

    MPQDM_HUB_MODELS        ids of the Hub that may be fetched, separated by commas; "*" in one stands for
                            anything ("google/*", or "*" alone for every model)
    MPQDM_MAX_DOWNLOAD_GB   largest model that may be fetched, in GB of 10**9 bytes; "none" for no limit
    MPQDM_MODEL_CACHE_GB    memory for open models, all visitors together

The first two hold on any machine when they are set; without them, only a Space has limits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mpqdm_core.errors import SettingsError
from mpqdm_core.memory import GB, gigabytes, total_memory

MODELS_VARIABLE = "MPQDM_HUB_MODELS"
SIZE_VARIABLE = "MPQDM_MAX_DOWNLOAD_GB"
CACHE_VARIABLE = "MPQDM_MODEL_CACHE_GB"

SPACE_MODELS = (
    "CompVis/ldm-celebahq-256",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "segmind/tiny-sd",
    "nota-ai/bk-sdm-tiny",
    "facebook/DiT-XL-2-256",
    "PixArt-alpha/PixArt-XL-2-512x512",
)
SPACE_MAX_BYTES = 6 * GB
CACHE_SHARE = 4  # open models may take this part of the memory: the rest is for calibrating and drawing
NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicy:
    """What visitors of this server may open."""

    local_paths: bool  # folders of the server's own disk
    models: tuple[str, ...]  # ids or patterns of the Hub; "*" is every model
    max_bytes: int | None  # of one model; None: no limit
    cache_bytes: int  # of all open models together

    @property
    def any_model(self) -> bool:
        """Whether every model of the Hub may be asked for."""
        return "*" in self.models

    def check_path(self) -> None:
        """Refuse a path of this machine where visitors are strangers.

        Raises:
            SettingsError: paths are off.
        """
        if not self.local_paths:
            raise SettingsError(
                "this server is shared, so it opens no folders of its own disk; choose a bundled one "
                "or one of the Hub, or run the explorer on your own machine"
            )

    def check_repo(self, repo_id: str) -> None:
        """Refuse a model that is not on the list.

        Raises:
            SettingsError: it is not on it.
        """
        if not any(fnmatchcase(repo_id, pattern) for pattern in self.models):
            shown = ", ".join(self.models[:NAMES_SHOWN]) or "none"
            more = f" and {len(self.models) - NAMES_SHOWN} more" if len(self.models) > NAMES_SHOWN else ""
            raise SettingsError(
                f"{repo_id} is not on this server's list of models ({shown}{more}); choose one of them, or "
                "run the explorer on your own machine"
            )

    def check_size(self, repo_id: str, nbytes: int) -> None:
        """Refuse a download that is too large for this server.

        Raises:
            SettingsError: it is.
        """
        if self.max_bytes is not None and nbytes > self.max_bytes:
            raise SettingsError(
                f"{repo_id} would fetch {gigabytes(nbytes)}, and this server fetches at most "
                f"{gigabytes(self.max_bytes)}; choose a smaller one, or run the explorer yourself"
            )


def host_policy(environ: Mapping[str, str] | None = None) -> HostPolicy:
    """Read the policy of this machine.

    Args:
        environ: instead of the process's environment.

    Raises:
        SettingsError: a variable holds something else than it should; nothing is allowed then.
    """
    found = os.environ if environ is None else environ
    space = bool(found.get("SPACE_ID"))
    listed = found.get(MODELS_VARIABLE)
    models: tuple[str, ...] = SPACE_MODELS if space else ("*",)
    if listed is not None:
        models = tuple(name for part in listed.split(",") if (name := part.strip()))
    limit = _size(found, SIZE_VARIABLE, SPACE_MAX_BYTES if space else None)
    cache = _size(found, CACHE_VARIABLE, max(GB, total_memory() // CACHE_SHARE))
    if cache is None:
        raise SettingsError(f"{CACHE_VARIABLE} must be a number of GB above 0, got 'none'")
    return HostPolicy(local_paths=not space, models=models, max_bytes=limit, cache_bytes=cache)


def _size(environ: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise SettingsError(f"{name} must be a number of GB above 0, got {text[:40]!r}")
    return max(1, int(value * GB))
