"""Cells of a grid of recipes, settings and seeds: each is trained, sampled and measured once, and kept.

What lies in the run folder or in a published results file is not computed again, and a killed training goes
on from its checkpoint. A cell of another model, scale or recipe does not count, whatever its name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks._cell_files import digest, read_cells
from benchmarks._drawn import kept_samples
from benchmarks._trained import trained_so
from mpqdm_core.adapter import Adapter, apply_adapter
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.encoding import EncodedSet, encode
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.families import FAMILIES
from mpqdm_core.finetune_run import finetune
from mpqdm_core.integer_layers import multiply_integers_
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import RowSettings
from mpqdm_core.neighbours import precision_recall
from mpqdm_core.quantization import QuantizedDenoiser, quantize
from mpqdm_core.recipes import Recipe
from mpqdm_core.sampling import Samples, sample
from mpqdm_core.teacher import TeacherRecord, record_teacher
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import Questions, agreement, ask, encode_real

MODEL = "sprites-ldm"
SETTINGS = {"W2A4": (2, 4), "W2A6": (2, 6), "W3A4": (3, 4), "W3A6": (3, 6)}
SEEDS = (0, 1, 2)
FIRST_PICTURE = 3_000_000  # noise of the evaluated pictures: away from calibration and training
GRID_PICTURES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much work a cell is."""

    steps: int = 400
    batch_size: int = 8
    record_pictures: int = 128
    pictures: int = 2048
    real: int = 5000
    batch: int = 128
    calibration: int = 32
    images_per_step: int = 16  # of the error tables
    positions: int = 16


QUICK = Scale(
    steps=2,
    batch_size=2,
    record_pictures=2,
    pictures=12,
    real=100,
    batch=12,
    calibration=2,
    images_per_step=2,
    positions=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One recipe at one setting with one seed."""

    setting: str
    recipe: str
    seed: int

    @property
    def key(self) -> str:
        """Name of its files."""
        return f"{self.setting}-{self.recipe}-{self.seed}"


class Bench:
    """What the cells share, computed when first needed and kept in the run folder."""

    def __init__(
        self,
        folder: Path,
        scale: Scale,
        recipes: Mapping[str, Recipe],
        model: str = MODEL,
        published: Sequence[Path] = (),
    ) -> None:
        """Work in `folder` on a bundled model.

        Args:
            folder: of what is kept between two calls.
            scale: how much work a cell is.
            recipes: by the key with which cells name them.
            model: name of a bundled one.
            published: results files whose cells count as measured.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.scale, self.recipes = folder, scale, recipes
        self.denoiser: Denoiser = load_denoiser(model)
        self._published = {
            (entry["setting"], entry["recipe"], entry["seed"], entry.get("made_of")): entry
            for path in published
            for entry in read_cells(path)
        }
        self._calibrations: dict[int, Calibration] = {}
        self._tables: dict[str, ErrorTable] = {}
        self._records: dict[int, TeacherRecord] = {}
        self._teachers: dict[int, Samples] = {}
        self._real: EncodedSet | None = None

    def calibration(self, seed: int) -> Calibration:
        """Calibration of a seed."""
        if seed not in self._calibrations:
            self._calibrations[seed] = calibrate(
                self.denoiser, CalibrationSettings(samples=self.scale.calibration, seed=seed)
            )
        return self._calibrations[seed]

    def table(self, cell: Cell) -> ErrorTable:
        """Error table of a cell; recipes that round and weigh alike share it."""
        recipe, activation_bits = self.recipes[cell.recipe], SETTINGS[cell.setting][1]
        key = digest(cell.seed, asdict(recipe.quant_settings(activation_bits)), recipe.allocation.weighting)
        if key not in self._tables:
            rows = RowSettings(images_per_step=self.scale.images_per_step, positions=self.scale.positions)
            self._tables[key] = recipe.measure(
                self.denoiser, self.calibration(cell.seed), activation_bits=activation_bits, rows=rows
            )
        return self._tables[key]

    def record(self, seed: int) -> TeacherRecord:
        """Teacher's record of a seed, shared by all recipes."""
        path = self.folder / f"teacher-{seed}.safetensors"
        if seed not in self._records:
            if not path.exists():
                record_teacher(self.denoiser, pictures=self.scale.record_pictures, seed=seed).save(path)
            self._records[seed] = TeacherRecord.load(path)
        return self._records[seed]

    def path(self, cell: Cell, ending: str) -> Path:
        """A file of a cell."""
        return self.folder / f"{cell.key}{ending}"

    def real(self, side: int) -> EncodedSet:
        """Held-out real pictures, seen as a model's pictures of this side are."""
        self._real = self._real or encode_real(self.scale.real, side=side)
        return self._real

    def questions(self, denoiser: Denoiser, count: int | None = None) -> Questions:
        """What the evaluated pictures are asked to show: classes or captions, the same for every seed."""
        return ask(denoiser, count or self.scale.pictures)

    def draw(self, denoiser: Denoiser, seed: int, count: int | None = None) -> Samples:
        """The evaluated pictures of a seed, or the first `count` of them."""
        first = FIRST_PICTURE + seed * self.scale.pictures
        count = count or self.scale.pictures
        questions = self.questions(denoiser, count)
        return sample(
            questions.denoiser,
            labels=questions.labels,
            seeds=range(first, first + count),
            batch_size=self.scale.batch,
        )

    def teacher(self, seed: int) -> Samples:
        """Full precision's pictures of a seed, kept in the run folder."""
        name = f"drawn-{seed}-{self.scale.pictures}-{self.denoiser.content_hash[:12]}.npz"
        if seed not in self._teachers:
            self._teachers[seed] = kept_samples(
                self.folder / name, self.denoiser.sampler, lambda: self.draw(self.denoiser, seed)
            )
        return self._teachers[seed]

    def student(self, cell: Cell) -> tuple[QuantizedDenoiser, dict[str, float]]:
        """Quantize and fine-tune as the cell's recipe says; with losses before and after."""
        recipe = self.recipes[cell.recipe]
        weight_bits, activation_bits = SETTINGS[cell.setting]
        calibration = self.calibration(cell.seed)
        plan = recipe.allocate(self.table(cell), weight_bits).plan
        rounding = recipe.quant_settings(activation_bits)
        settings = recipe.finetune_settings(self.scale.steps, cell.seed, batch_size=self.scale.batch_size)
        if settings is None:
            return quantize(self.denoiser, calibration, plan, rounding), {}
        kept = self.path(cell, ".safetensors")
        adapter = Adapter.load(kept) if kept.exists() else None
        if adapter is None or not trained_so(adapter, calibration, plan, rounding, settings):
            adapter = finetune(
                self.denoiser,
                calibration,
                plan,
                self.record(cell.seed),
                settings,
                rounding,
                checkpoint=self.path(cell, ".state"),
            ).adapter
            adapter.save(kept)
        return apply_adapter(self.denoiser, calibration, adapter), dict(adapter.losses)

    def made_of(self, cell: Cell) -> str:
        """Changes with everything that decides a cell's figures: model, scale, bits and recipe."""
        decides = asdict(replace(self.recipes[cell.recipe], name="", title="", differs=""))
        return digest(self.denoiser.content_hash, asdict(self.scale), SETTINGS[cell.setting], decides)

    def kept(self, cell: Cell) -> dict[str, Any] | None:
        """Every figure of a cell that was measured already."""
        made_of = self.made_of(cell)
        path = self.path(cell, ".json")
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            if found["made_of"] == made_of:
                return found
        return self._published.get((cell.setting, cell.recipe, cell.seed, made_of))

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Measure a cell and keep its figures."""
        start = time.monotonic()
        student, losses = self.student(cell)
        trained = time.monotonic()
        multiply_integers_(student.denoiser.network)
        drawn = self.draw(student.denoiser, cell.seed)
        real = self.real(drawn.images.shape[1])
        comparison = compare(self.teacher(cell.seed), drawn, encoder=load_encoder(), real_features=real)
        precision, recall = precision_recall(real.features, encode(load_encoder(), drawn.images).features)
        questions = self.questions(self.denoiser)
        sets = comparison.distribution
        report = student.bit_report
        content: dict[str, Any] = {
            **asdict(cell),
            "made_of": self.made_of(cell),
            "psnr_db": comparison.image_psnr_db.mean.value,
            "latent_snr_db": comparison.latent_snr_db.mean.value,
            "losses": losses,
            "nominal_bits": student.plan.mean_bits,
            "effective_bits": report.effective_bits,
            "train_s": trained - start,
            "sample_s": time.monotonic() - trained,
            "precision_real": precision.value,
            "recall_real": recall.value,
        }
        if FAMILIES[self.denoiser.family].prompted:
            content["caption_agreement"] = float(agreement(drawn.images, questions.asked).mean())
        if sets is not None:
            content |= {
                "fid_real": sets.fid_to_real.value if sets.fid_to_real else None,
                "fid_real_teacher": sets.fid_to_real_reference.value if sets.fid_to_real_reference else None,
                "fid_teacher": sets.fid.value,
                "sfid_teacher": sets.sfid.value,
                "inception_score": sets.inception_score.value,
                "precision_teacher": sets.precision.value,
                "recall_teacher": sets.recall.value,
                "sfid_real": sets.sfid_to_real.value if sets.sfid_to_real else None,
                "class_accuracy": sets.class_accuracy.value if sets.class_accuracy else None,
            }
        np.save(self.path(cell, ".npy"), drawn.images[:GRID_PICTURES])
        path = self.path(cell, ".json")
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=2))
        os.replace(partial, path)
        return content

    def save_grid(self, measured: Sequence[Mapping[str, Any]], setting: str, path: Path) -> None:
        """Ten pictures of each recipe at one setting, full precision on top; seed 0.

        Where one of the recipes was drawn on another machine, the picture that is there stays.
        """
        done = {entry["recipe"] for entry in measured if entry["setting"] == setting and entry["seed"] == 0}
        drawn = [Cell(setting=setting, recipe=recipe, seed=0) for recipe in self.recipes if recipe in done]
        if not all(self.path(cell, ".npy").exists() for cell in drawn):
            return
        teacher = self.draw(self.denoiser, 0, min(GRID_PICTURES, self.scale.pictures))
        rows = [teacher.images, *(np.load(self.path(cell, ".npy")) for cell in drawn)]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
        Image.fromarray(sheet).save(path)
