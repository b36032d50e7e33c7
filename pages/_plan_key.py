"""A visitor's plan, found again by what made it: a server for many keeps none of them for good."""

from __future__ import annotations

from typing import Any

from mpqdm_core.errors import DataError, MpqdmError
from pages._budget_solve import Solved, solve

NO_PLAN = "there is no plan yet: choose one on Bit budget"


def plan_of(key: Any, missing: str = NO_PLAN) -> Solved:
    """The plan with this key (`Solved.key`), solved again if it was dropped to make room.

    Raises:
        DataError: there is no plan, with the sentence `missing`.
        MpqdmError: its model is not open any more, or was measured otherwise since.
    """
    if not key:
        raise DataError(missing)
    return solve(*key)


def plan_if_any(key: Any) -> Solved | None:
    """The plan with this key, or None where there is none or it cannot be had any more."""
    try:
        return plan_of(key)
    except MpqdmError:
        return None
