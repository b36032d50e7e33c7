"""Keeping what was made elsewhere: a comparison on its page, with the plan or the adapter behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board import measured as measuring
from mpqdm_core.board.laboratory import Computed
from mpqdm_core.board.run import KeptRun, Metric, Pictures, Scalar, new_id, now
from mpqdm_core.comparison import Comparison
from mpqdm_core.packing import PackedFolder


def compared_run(
    *,
    kind: str,
    title: str,
    comparison: Comparison,
    pictures: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    names: Sequence[str],
    settings: Mapping[str, Scalar],
    hashes: Mapping[str, str],
    plan: BitPlan | None = None,
    packed: PackedFolder | None = None,
    device: str = "",
) -> Computed:
    """A run of one model that was compared with full precision.

    Args:
        kind: one of `mpqdm_core.board.run.KINDS`.
        title: in tables.
        comparison: with full precision, from the same seeds.
        pictures: (N, H, W, 3), drawn by the model.
        reference: (N, H, W, 3), the same in full precision.
        names: what each picture shows.
        settings: by which runs are told apart.
        hashes: of model, calibration and plan.
        plan: bits of every channel, if known.
        packed: the account of its packed file, if it was packed.
        device: what it was drawn on.
    """
    shown = measuring.SHOWN
    files = [measuring.sheet(pictures[:shown]), measuring.sheet(reference[:shown])]
    if plan is not None:
        files.append(plan.to_json().encode())
    sizes: dict[str, Metric] = {}
    if plan is not None:
        sizes["nominal_bits"] = Metric(value=plan.mean_bits)
    if packed is not None:
        report = packed.manifest.bit_report
        sizes["effective_bits"] = Metric(value=report.effective_bits)
        sizes["size_mib"] = Metric(value=report.bytes_estimate / measuring.MEBIBYTE)
        sizes |= measuring.on_disk(packed)
    run = KeptRun(
        id=new_id(),
        kind=kind,
        title=title,
        created=now(),
        settings=settings,
        hashes=hashes,
        metrics={**measuring.measured(comparison), **sizes},
        curves=measuring.by_step(comparison),
        pictures=Pictures(
            tile=int(pictures.shape[1]),
            names=tuple(names[:shown]),
            seeds=tuple(int(seed) for seed in comparison.seeds[:shown]),
            drawn=measuring.blob_hash(files[0]),
            reference=measuring.blob_hash(files[1]),
        ),
        plan=None if plan is None else measuring.blob_hash(files[2]),
        device=device,
        versions=measuring.versions(),
    )
    return Computed(run=run, files=tuple(files))
