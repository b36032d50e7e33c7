"""The long jobs of the Export page: quantize and pack, and open what a visitor sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqdm_core.errors import DataError
from mpqdm_core.progress import Report
from pages._budget_solve import Solved
from pages._compare_work import prepared
from pages._distill_adapters import ADAPTERS, Offered, student_of
from pages._packed_store import STORE, Shown, new_place
from pages._plan_key import plan_of
from pages._session import workspace
from pages._warm import import_all
from pages._work import bundled_names, ensure_denoiser, phase

PLAN = "plan"
BUNDLED_LICENCE = "apache-2.0"
NAME_LETTERS = re.compile(r"[^A-Za-z0-9_.-]+")
MAX_NAME = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What is to be packed."""

    source: Solved | Offered
    scale_dtype: str

    @property
    def work_key(self) -> str:
        """Of the workspace whose model it is."""
        return self.source.work.key if isinstance(self.source, Solved) else self.source.work_key


def read_order(plan: Any, chosen: Any, scale_dtype: Any) -> Order:
    """What the widgets ask for.

    Raises:
        DataError: there is no plan, or the fine-tuned model is not kept any more.
    """
    if chosen in (None, "", PLAN):
        source: Any = plan_of(plan)
    else:
        source = ADAPTERS.get(chosen)
        if source is None:
            raise DataError("this fine-tuned model is not kept any more: choose another one")
    return Order(source=source, scale_dtype="float32" if scale_dtype == "float32" else "float16")


def export(order: Order, report: Report) -> Shown:
    """Quantize, write the packed folder and zip it.

    Raises:
        Cancelled: raised by `report`; nothing is kept then.
        DataError: the plan or the fine-tuned model belongs to a model that was changed since.
    """
    import_all()
    from mpqdm_core.packing import export_packed, zip_packed

    student = _student(order.source, phase(report, 0, 3, "rounding"))
    place = new_place()
    name = _file_name(f"{student.denoiser.name}-{student.plan.mean_bits:.2f}-bits")
    recipe, metrics = _origin(order.source)
    packed = export_packed(
        student,
        place / name,
        scale_dtype=order.scale_dtype,  # type: ignore[arg-type]
        licence=_licence(workspace(order.work_key).source),
        recipe=recipe,
        metrics=metrics,
        report=phase(report, 1, 3, "packing"),
    )
    archive = zip_packed(place / name, place / f"{name}.zip", phase(report, 2, 3, "zip"))
    shown = Shown(
        key=place.name,
        place=place,
        name=name,
        packed=packed,
        archive=archive,
        mismatch="",
        network=type(student.denoiser.network).__name__,
        part=packed.file.parent.name,
    )
    STORE.put(shown.key, shown)
    return shown


def open_file(file: str, session: str | None, report: Report) -> Shown:
    """Look at a packed model that a visitor uploaded, and hold it against the open one.

    Raises:
        LoadError: it is no packed model that can be read.
    """
    import_all()
    from mpqdm_core.packing import mismatch, open_upload

    report(0, 2, "reading the file")
    place = new_place()
    packed = open_upload(file, place)
    denoiser = ensure_denoiser(workspace(session), phase(report, 1, 2, "loading the open model"))
    shown = Shown(
        key=place.name,
        place=place,
        name=_file_name(Path(file).name),
        packed=packed,
        archive=None,
        mismatch=mismatch(packed.manifest, denoiser),
    )
    STORE.put(shown.key, shown)
    return shown


def _student(source: Solved | Offered, report: Report) -> Any:
    from mpqdm_core.quantization import quantize

    if isinstance(source, Offered):
        return student_of(source, report)
    denoiser, calibration, settings = prepared(source, report)
    return quantize(denoiser, calibration, source.allocation.plan, settings, report)


def _origin(source: Solved | Offered) -> tuple[dict[str, Any], Mapping[str, float]]:
    """How it was made, and what was measured; JSON values."""
    if isinstance(source, Solved):
        return {"made": "rounding only", "policy": source.choice.settings.policy}, {}
    adapter = source.adapter
    recipe = {"made": "fine-tuned", "steps": adapter.steps, "finetuning": adapter.settings.as_dict()}
    return recipe, {f"held-out loss, {name}": float(value) for name, value in adapter.losses.items()}


def _licence(source: str) -> str | None:
    """Of the full-precision model, as its card says."""
    from huggingface_hub import metadata_load

    if source in bundled_names():
        return BUNDLED_LICENCE
    card = Path(source) / "README.md"
    try:
        found = metadata_load(card) if card.is_file() else None
    except (OSError, ValueError):  # no front matter that can be read
        found = None
    licence = (found or {}).get("license")
    return licence if isinstance(licence, str) else None


def _file_name(name: str) -> str:
    return NAME_LETTERS.sub("-", name)[:MAX_NAME] or "model"
