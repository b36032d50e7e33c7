"""Sweeps: every combination of a few settings, as cells that are computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any

from mpqdm_core.allocation.settings import POLICIES, SCOPES, WEIGHTINGS
from mpqdm_core.errors import LoadError, SettingsError

FINETUNINGS = ("none", "efficientdm", "mpqdm-as-released", "mpqdm-corrected", "ours")
"""Fine-tuning of a cell: none, or as a recipe of that name does it."""

GRIDS = ("mid-rise", "affine")
MAX_CELLS = 500
MAX_PICTURES = 2_000
MAX_STEPS = 20_000
MAX_SEED = 10_000
PICTURE_SEEDS = 4_000_000  # noise of the pictures: away from calibration and training


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination."""

    policy: str
    weighting: str
    scope: str
    grid: str
    average_bits: float
    activation_bits: int | None  # None: activations stay in full precision
    finetuning: str
    relation: bool  # whether the relation loss trains too; always False without fine-tuning
    seed: int  # of the pictures' noise, of random choices and of fine-tuning; calibration is shared

    @property
    def title(self) -> str:
        """What tells it from others, in few words."""
        inputs = "fp" if self.activation_bits is None else str(self.activation_bits)
        words = f"{self.policy} W{self.average_bits:g}A{inputs}"
        if self.finetuning != "none":
            words += f" + {self.finetuning}" + ("" if self.relation else " without TRD")
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much work each cell is."""

    pictures: int = 8
    steps: int = 60  # of fine-tuning
    batch_size: int = 4  # pictures of one step
    record_pictures: int = 16  # that the teacher shows

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            SettingsError: a count is outside its range.
        """
        for name, low, high in (
            ("pictures", 1, MAX_PICTURES),
            ("steps", 1, MAX_STEPS),
            ("batch_size", 1, 256),
            ("record_pictures", 2, MAX_PICTURES),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """The values of every factor; a sweep computes every combination that differs."""

    policies: tuple[str, ...] = ("uniform", "optimal")
    weightings: tuple[str, ...] = ("sensitivity",)
    scopes: tuple[str, ...] = ("model",)
    grids: tuple[str, ...] = ("mid-rise",)
    average_bits: tuple[float, ...] = (3.0, 4.0)
    activation_bits: tuple[int | None, ...] = (8,)
    finetunings: tuple[str, ...] = ("none",)
    relations: tuple[bool, ...] = (True,)
    seeds: tuple[int, ...] = (0,)
    effort: Effort = Effort()

    def __post_init__(self) -> None:
        """Check every value, and that there are not too many cells.

        Raises:
            SettingsError: a factor is empty, a value is not allowed, or there are too many cells.
        """
        for name, allowed in (
            ("policies", POLICIES),
            ("weightings", WEIGHTINGS),
            ("scopes", SCOPES),
            ("grids", GRIDS),
            ("finetunings", FINETUNINGS),
            ("relations", (False, True)),
            ("activation_bits", (None, 2, 3, 4, 5, 6, 7, 8)),
        ):
            _check(name, getattr(self, name), allowed)
        if not self.average_bits or any(not _between(value, 1, 8) for value in self.average_bits):
            raise SettingsError(f"average_bits must be numbers from 1 to 8, got {list(self.average_bits)}")
        if not self.seeds or any(value != int(value) or not 0 <= value <= MAX_SEED for value in self.seeds):
            raise SettingsError(f"seeds must be whole numbers from 0 to {MAX_SEED}, got {list(self.seeds)}")
        if (count := len(self.cells())) > MAX_CELLS:
            raise SettingsError(f"that is {count} cells, at most {MAX_CELLS} are allowed: leave some out")

    def cells(self) -> tuple[Cell, ...]:
        """Every combination once; values that make no difference to a cell are set to one of them."""
        found: dict[Cell, None] = {}
        for seed, bits, inputs, grid, policy, weighting, scope, finetuning, relation in product(
            self.seeds, self.average_bits, self.activation_bits, self.grids, self.policies,
            self.weightings, self.scopes, self.finetunings, self.relations,
        ):  # fmt: skip
            plain = policy == "uniform"  # whatever errors weigh, all channels get the same
            cell = Cell(
                policy=policy,
                weighting="none" if plain else weighting,
                scope="layer" if plain else scope,
                grid=grid,
                average_bits=float(bits),
                activation_bits=inputs,
                finetuning=finetuning,
                relation=relation and finetuning != "none",
                seed=int(seed),
            )
            found[cell] = None
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form; `SweepSettings.from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SweepSettings:
        """Read what `as_dict` wrote.

        Raises:
            LoadError: it is something else.
        """
        known = {entry.name for entry in fields(cls)}
        try:
            values = {
                name: tuple(value) for name, value in document.items() if name in known and name != "effort"
            }
            return cls(**values, effort=Effort(**document.get("effort", {})))
        except (AttributeError, TypeError, ValueError) as err:
            raise LoadError(f"this is not a sweep: {err}") from err


def cell_id(cell: Cell, effort: Effort, *, model_hash: str, calibration_hash: str) -> str:
    """The id of a cell's run: the same work has the same id, in whichever sweep it is asked for."""
    parts = [model_hash, calibration_hash, asdict(cell), effort.pictures]
    if cell.finetuning != "none":
        parts.append(asdict(effort))
    if cell.weighting == "sensitivity":
        parts.append("layer effects")  # earlier runs were priced without them
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def sweep_id(settings: SweepSettings, model_hash: str) -> str:
    """The same settings on the same model are the same sweep."""
    text = json.dumps([model_hash, settings.as_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def picture_seeds(cell: Cell, effort: Effort) -> range:
    """Seeds of a cell's pictures: cells with the same seed show the same noise."""
    return range(
        PICTURE_SEEDS + cell.seed * MAX_PICTURES, PICTURE_SEEDS + cell.seed * MAX_PICTURES + effort.pictures
    )


def _check(name: str, values: tuple[Any, ...], allowed: tuple[Any, ...]) -> None:
    wrong = [value for value in values if value not in allowed]
    if wrong or not values:
        listed = ", ".join(str(value) for value in allowed)
        raise SettingsError(f"{name} must be one or more of {listed}; got {list(values)}")


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
