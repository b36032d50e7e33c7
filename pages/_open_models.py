"""The models in memory: one cache for all visitors, bounded in bytes; the least recently used goes first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from mpqdm_core.host_policy import host_policy
from pages._workspace import WORKSPACES


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """One model in memory."""

    key: str  # content hash
    title: str
    nbytes: int


_GUARD = threading.Lock()
_MADE: list[Any] = []


def open_models() -> Any:
    """The cache, made when the first model is opened: it needs torch.

    Raises:
        SettingsError: its size in the environment is no size.
    """
    with _GUARD:
        if not _MADE:
            from mpqdm_core.model_cache import ModelCache

            _MADE.append(ModelCache(host_policy().cache_bytes, on_forget=_let_go))
        return _MADE[0]


def listed() -> tuple[OpenModel, ...]:
    """What is in memory, the most recently used first; opens nothing and imports no torch."""
    if not _MADE:
        return ()
    from mpqdm_core.model_cache import weight_bytes

    titles = {id(work.denoiser): work.title for work in WORKSPACES.values() if work.denoiser is not None}
    return tuple(
        OpenModel(
            key=denoiser.content_hash,
            title=titles.get(id(denoiser), denoiser.name),
            nbytes=weight_bytes(denoiser),
        )
        for denoiser in reversed(_MADE[0].models())
    )


def unload(key: str) -> str:
    """Let go of a model; its measurements stay. Returns its title, or nothing if it was gone already."""
    titles = {model.key: model.title for model in listed()}
    for denoiser in _MADE[0].models() if _MADE else ():
        if denoiser.content_hash == key:
            _MADE[0].forget(denoiser)
    return titles.get(key, "")


def _let_go(denoiser: Any) -> None:
    for work in WORKSPACES.values():
        if work.denoiser is denoiser:
            work.denoiser = None
