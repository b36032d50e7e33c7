"""Adapters that runs have left on this server, for everything that can draw with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpqdm_core.progress import Report
from pages._exempt import denoiser_with
from pages._packed_weights import PackedWeights
from pages._session import workspace
from pages._work import ensure_calibration, ensure_denoiser
from pages._workspace import Recent

MAX_ADAPTERS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Offered:
    """One adapter, and what it takes to use it."""

    key: str  # short; the same for the same run
    title: str
    work_key: str  # of the workspace whose model it was trained for
    changed: Mapping[str, str | None]  # exempt layers, against the family's rules
    adapter: Any  # Adapter or PackedWeights


ADAPTERS: Recent[Offered] = Recent(MAX_ADAPTERS)


def student_of(offered: Offered, report: Report) -> Any:
    """The fine-tuned model, quantized; draw with its `.denoiser`.

    Raises:
        DataError: model or calibration were made anew since.
        LoadError: a packed file was deleted, or belongs to another model.
    """
    from mpqdm_core.adapter import apply_adapter

    work = workspace(offered.work_key)
    denoiser = denoiser_with(ensure_denoiser(work, report), offered.changed)
    if isinstance(offered.adapter, PackedWeights):
        return offered.adapter.student(denoiser)
    return apply_adapter(denoiser, ensure_calibration(work, report), offered.adapter)
