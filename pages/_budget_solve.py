"""From the widgets of the Bit budget page to an allocation, through the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpqdm_core.allocation import Allocation, AllocationSettings, allocate, errors_alone, frontier
from mpqdm_core.errors import BudgetError, DataError, MpqdmError, SettingsError
from pages import _budget_tables as tables
from pages import _exempt
from pages._rounding import Rounding
from pages._session import workspace
from pages._workspace import ALLOCATIONS, Workspace

FRONTIER_BITS = tuple(np.arange(1.0, 8.01, 0.5).tolist())
COMPARED = ("optimal", "kurtosis")  # drawn beside the policy in use
MAX_EXTRA = 5  # groups


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the widgets say, checked."""

    settings: AllocationSettings
    rounding: Rounding
    eight: tuple[str, ...] | None = None  # layers kept at 8 bits; None: the family's rules
    full: tuple[str, ...] | None = None  # layers kept in full precision

    @property
    def activation_bits(self) -> int | None:
        """Bits of the layers' inputs."""
        return self.rounding.activation_bits

    def changed(self, work: Workspace) -> dict[str, str | None]:
        """How the exempt layers differ from the family's rules.

        Raises:
            SettingsError: the two lists contradict each other or do not belong to this model.
        """
        return _exempt.changes(work.layers, self.eight, self.full)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solved:
    """An allocation with the table it was made from."""

    work: Workspace
    table: Any
    choice: Choice
    allocation: Allocation
    changed: Mapping[str, str | None]  # exempt layers, against the family's rules

    @property
    def key(self) -> tuple[str, Choice]:
        """What `solve` needs to make this result again."""
        return self.work.key, self.choice

    @property
    def layers(self) -> tuple[Any, ...]:
        """The model's layers with the visitor's exemptions."""
        return _exempt.apply(self.work.layers, self.changed)


def read_choice(
    weight_bits: Any,
    activation_bits: Any,
    activations_full: bool,
    allowed: Sequence[int],
    policy: str,
    weighting: str,
    scope: str,
    locks: Mapping[str, int],
    extra_groups: Any = 0,
    grid: str = "mid-rise",
    range_exponent: Any = 2.4,
    prescale: bool = True,
    eight: Sequence[str] | None = None,
    full: Sequence[str] | None = None,
) -> Choice:
    """Check the widgets; extra groups count with the policy `kurtosis` only.

    Raises:
        SettingsError: a number box is empty or holds no number, or no bit-width is allowed.
        BudgetError: a number is outside its range.
    """
    average = number(weight_bits, "the average weight bits", 1, 8)
    bits = None if activations_full else int(number(activation_bits, "the activation bits", 2, 8))
    if not allowed:
        raise SettingsError("no bit-width is allowed: tick at least one of 1 to 8")
    extra = int(number(extra_groups, "the number of extra groups", 0, MAX_EXTRA))
    power = number(range_exponent, "the power of the range search", 1, 10)
    settings = AllocationSettings(
        policy=policy,
        average_bits=average,
        weighting=weighting,
        scope=scope,
        allowed_bits=tuple(int(value) for value in allowed),
        locked=dict(locks),
        extra_groups=extra if policy == "kurtosis" else 0,
    )
    return Choice(
        settings=settings,
        rounding=Rounding(activation_bits=bits, grid=grid, range_exponent=power, prescale=bool(prescale)),
        eight=None if eight is None else tuple(eight),
        full=None if full is None else tuple(full),
    )


def number(value: Any, name: str, low: float, high: float) -> float:
    """A finite number within [low, high].

    Raises:
        SettingsError: it is missing, text, NaN or infinite.
        BudgetError: it is outside the range.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}") from None
    if not math.isfinite(found):
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, got {found}")
    if not low <= found <= high:
        raise BudgetError(
            f"{name} must be from {low:g} to {high:g}, got {found:g}", minimum=low, maximum=high
        )
    return found


def solve(session: str | None, choice: Choice) -> Solved:
    """Allocate under the visitor's settings; the same settings are solved once.

    Raises:
        NotMeasuredError: nothing was measured with this rounding, or not for all layers.
        DataError: nothing was measured at all.
        BudgetError: the settings cannot meet the budget.
    """
    work = workspace(session)
    changed = choice.changed(work)
    table = tables.find(work, choice.rounding, changed)
    settings = choice.settings
    if settings.weighting == "sensitivity" and table.sensitivity is None:
        raise DataError(
            f"the sensitivity of {work.title} has not been measured; choose another weight for the errors"
        )
    allocation = ALLOCATIONS.get_or_make(
        (table.content_hash, str(settings.as_dict())), lambda: allocate(table, settings)
    )
    return Solved(work=work, table=table, choice=choice, allocation=allocation, changed=changed)


def at_same_budget(solved: Solved, **changes: Any) -> Allocation | None:
    """The allocation of other settings on the same table, or None where they cannot meet the budget."""
    settings = replace(solved.choice.settings, extra_groups=0, **changes)
    try:
        return ALLOCATIONS.get_or_make(
            (solved.table.content_hash, str(settings.as_dict())), lambda: allocate(solved.table, settings)
        )
    except MpqdmError:
        return None


def alone(solved: Solved, bits: int) -> Any:
    """The predicted error of each layer rounded alone, (L,)."""
    weighting = solved.choice.settings.weighting
    key = ("alone", solved.table.content_hash, weighting, bits)
    return ALLOCATIONS.get_or_make(key, lambda: errors_alone(solved.table, weighting, bits))


def frontier_curves(solved: Solved) -> dict[str, tuple[list[float], list[float]]]:
    """Predicted error over all budgets, for the policy in use and those it is compared with."""
    policies = dict.fromkeys((solved.choice.settings.policy, *COMPARED))
    return {policy: curve for policy in policies if (curve := _curve(solved, policy))[0]}


def _curve(solved: Solved, policy: str) -> tuple[list[float], list[float]]:
    settings = replace(solved.choice.settings, policy=policy, average_bits=4.0, extra_groups=0)
    key = ("frontier", solved.table.content_hash, str(settings.as_dict()))
    errors = ALLOCATIONS.get_or_make(key, lambda: frontier(solved.table, settings, FRONTIER_BITS))
    known = np.isfinite(errors)
    return np.array(FRONTIER_BITS)[known].tolist(), errors[known].tolist()
