"""Computing cells: what they share is made once; each is allocated, rounded, perhaps trained, and drawn."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mpqdm_core.adapter import apply_adapter
from mpqdm_core.allocation import BitPlan, allocate
from mpqdm_core.board import measured as measuring
from mpqdm_core.board.cells import allocation_of, finetuning_of, rounding_of, settings_of
from mpqdm_core.board.run import Curve, KeptRun, now
from mpqdm_core.board.sweep import Cell, Effort, cell_id, picture_seeds
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.effects import affordable_effects, with_effects
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import Cancelled
from mpqdm_core.finetune_run import finetune
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.sampling import Samples, sample
from mpqdm_core.sensitivity import channel_sensitivity
from mpqdm_core.teacher import TeacherRecord, record_teacher

PARTS, FULL = 6, 100
WAY_PICTURES = 64  # the ways of more pictures are not recorded: they would not fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Computed:
    """A run and the files it names."""

    run: KeptRun
    files: tuple[bytes, ...]


class Laboratory:
    """One model with its calibration, tables, references and teacher's records, made when first needed."""

    def __init__(
        self,
        denoiser: Denoiser,
        effort: Effort,
        *,
        calibration: Calibration | None = None,
        tables: Iterable[ErrorTable] = (),
        rows: RowSettings | None = None,
        scratch: Path | None = None,
    ) -> None:
        """Work on one model.

        Args:
            denoiser: full precision.
            effort: how much work a cell is.
            calibration: taken from it; None makes one.
            tables: measured before; those of another calibration are left aside.
            rows: of the tables that are measured here; None takes the defaults.
            scratch: folder of checkpoints, so that a killed fine-tuning goes on; None keeps none.
        """
        self.denoiser, self.effort, self._scratch = denoiser, effort, scratch
        self._calibration, self._offered, self._rows = calibration, tuple(tables), rows
        self._tables: dict[str, ErrorTable] = {}
        self._references: dict[int, Samples] = {}
        self._records: dict[int, TeacherRecord] = {}
        self._sensitivity: dict[str, torch.Tensor] | None = None

    def calibration(self, report: Report = silent) -> Calibration:
        """The calibration that all cells share."""
        if self._calibration is None:
            self._calibration = calibrate(self.denoiser, CalibrationSettings(), report)
        return self._calibration

    def id_of(self, cell: Cell, report: Report = silent) -> str:
        """The id that the cell's run has."""
        calibration = self.calibration(report)
        return cell_id(
            cell,
            self.effort,
            model_hash=self.denoiser.content_hash,
            calibration_hash=calibration.content_hash,
        )

    def compute(self, cell: Cell, sweep: str = "", report: Report = silent) -> Computed:
        """Everything about one cell.

        Raises:
            BudgetError: the average cannot be met.
            SettingsError: the cell asks for something that is not possible, or memory ran out.
            Cancelled: raised by `report`.
        """
        seconds: dict[str, float] = {}
        with _timed(seconds, "prepare"):
            calibration = self.calibration(_phase(report, 0, "calibration"))
            rounding = rounding_of(cell)
            table = self._table(rounding, cell.weighting == "sensitivity", _phase(report, 1, "error table"))
            reference = self._reference(cell, _phase(report, 2, "full precision"))
        with _timed(seconds, "allocate"):
            plan = allocate(table, allocation_of(cell)).plan
        part = "quantize" if cell.finetuning == "none" else "finetune"
        with _timed(seconds, part):
            student, losses = self._student(cell, plan, rounding, _phase(report, 3, part))
        with _timed(seconds, "pack"):
            weighed = measuring.weighed(student, _phase(report, 4, "packing"))
        with _timed(seconds, "draw"):
            drawn = self._draw(student.denoiser, cell, _phase(report, 5, "pictures"))
            found = compare(reference, drawn)
        shown = measuring.SHOWN
        files = (
            measuring.sheet(drawn.images[:shown]),
            measuring.sheet(reference.images[:shown]),
            plan.to_json().encode(),
        )
        run = KeptRun(
            id=self.id_of(cell),
            kind="cell",
            title=cell.title,
            created=now(),
            sweep=sweep,
            settings=settings_of(cell, self.effort, self.denoiser, calibration, table),
            hashes={
                "model": self.denoiser.content_hash,
                "calibration": calibration.content_hash,
                "plan": plan.content_hash,
                "quantized": student.content_hash,
            },
            metrics={**measuring.measured(found), **measuring.counted(student, self.denoiser), **weighed},
            curves={**measuring.by_step(found), **losses},
            pictures=measuring.describe_pictures(drawn, files, self.denoiser.class_names),
            plan=measuring.blob_hash(files[2]),
            seconds={name: round(value, 3) for name, value in seconds.items()},
            device=measuring.device_of(self.denoiser),
            versions=measuring.versions(),
        )
        return Computed(run=run, files=files)

    def _table(self, rounding: QuantSettings, weighted: bool, report: Report) -> ErrorTable:
        calibration = self.calibration()
        wanted = {**rounding.as_dict(), "calibration_hash": calibration.content_hash}
        key = str(sorted(wanted.items(), key=str))
        if key not in self._tables:
            offered = (t for t in self._offered if wanted.items() <= dict(t.settings).items())
            self._tables[key] = next(offered, None) or measure_error_table(
                self.denoiser, calibration, rounding, report, rows=self._rows
            )
        if weighted and self._tables[key].sensitivity is None:
            if self._sensitivity is None:
                self._sensitivity = dict(channel_sensitivity(self.denoiser, calibration, report=report))
            values = [self._sensitivity[name].double().cpu() for name in self._tables[key].layer_names]
            priced = replace(self._tables[key], sensitivity=torch.cat(values).float().numpy())
            self._tables[key] = with_effects(
                priced, affordable_effects(self.denoiser, calibration, rounding, report)
            )
        return self._tables[key]

    def _draw(self, denoiser: Denoiser, cell: Cell, report: Report) -> Samples:
        classes = self.denoiser.num_classes
        labels = [place % classes for place in range(self.effort.pictures)] if classes else None
        seeds = picture_seeds(cell, self.effort)
        return sample(
            denoiser,
            labels=labels,
            seeds=seeds,
            record="latents" if len(seeds) <= WAY_PICTURES else "none",
            report=report,
        )

    def _reference(self, cell: Cell, report: Report) -> Samples:
        if cell.seed not in self._references:
            self._references[cell.seed] = self._draw(self.denoiser, cell, report)
        return self._references[cell.seed]

    def _student(
        self, cell: Cell, plan: BitPlan, rounding: QuantSettings, report: Report
    ) -> tuple[QuantizedDenoiser, dict[str, Curve]]:
        settings = finetuning_of(cell, self.effort)
        if settings is None:
            return quantize(self.denoiser, self.calibration(), plan, rounding, report), {}
        if cell.seed not in self._records:
            self._records[cell.seed] = record_teacher(
                self.denoiser, pictures=self.effort.record_pictures, seed=cell.seed, report=report
            )
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        losses: list[tuple[int, float]] = []
        result = finetune(
            self.denoiser,
            self.calibration(),
            plan,
            self._records[cell.seed],
            settings,
            rounding,
            checkpoint=None if self._scratch is None else self._scratch / f"{self.id_of(cell)}.state",
            report=report,
            on_step=lambda step: losses.append((step.step, step.loss)),
        )
        if not result.finished:
            raise Cancelled("Stopped. Finished cells are kept.")
        steps, values = zip(*losses, strict=True) if losses else ((), ())
        curve = Curve(x=tuple(map(float, steps)), y=tuple(float(value) for value in values))
        return apply_adapter(self.denoiser, self.calibration(), result.adapter), {"loss": curve}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


def _phase(report: Report, index: int, title: str) -> Report:
    """A report for part `index` of a cell that moves the whole cell along."""

    def inner(done: int, total: int, message: str) -> None:
        share = FULL * done // max(total, 1)
        report(index * FULL + share, PARTS * FULL, f"{title}: {message}" if message else title)

    return inner
