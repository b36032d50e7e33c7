"""What an allocation is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mpqdm_core.error_table import BITS
from mpqdm_core.errors import SettingsError

POLICIES = ("uniform", "kurtosis", "gain", "optimal", "random", "head-tail")
"""How bits are given out; see `mpqdm_core.allocation` for what each does."""

WEIGHTINGS = ("none", "relative", "sensitivity")
"""What a channel's error counts: as measured, per output energy, or by its effect on the network's output."""

SCOPES = ("layer", "model")
"""Whether each layer meets the average on its own or the whole model does."""

SWAP_POLICIES = ("kurtosis", "random", "head-tail")
"""Policies that rank channels and move groups of them up and down around one bit-width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllocationSettings:
    """Budget, policy and limits of one allocation.

    Attributes:
        policy: one of `POLICIES`.
        average_bits: budget in mean bits per weight over the table's layers, locked layers included.
        weighting: one of `WEIGHTINGS`.
        scope: one of `SCOPES`.
        allowed_bits: bit-widths the policy may give out, any subset of 1..8; stored sorted.
        locked: layer name -> bits of all its channels, 1..8 and not bound to `allowed_bits`.
        seed: for the policy `random`.
        group_fraction: size of one swap group as a share of the channels (the paper's 1/10).
        max_groups: the most groups moved up and as many moved down (the paper's g goes to 5).
        extra_groups: groups moved up that no group moved down pays for: our reading of MPQ-DM+, whose rule
            is not published. The mean then exceeds `average_bits`. Only for `SWAP_POLICIES`.

    Raises:
        SettingsError: a value outside its range.
    """

    policy: str = "optimal"
    average_bits: float = 4.0
    weighting: str = "none"
    scope: str = "layer"
    allowed_bits: tuple[int, ...] = BITS
    locked: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    group_fraction: float = 0.1
    max_groups: int = 5
    extra_groups: int = 0

    def __post_init__(self) -> None:
        """Check every value and store containers in one form."""
        for name, choices in (("policy", POLICIES), ("weighting", WEIGHTINGS), ("scope", SCOPES)):
            if getattr(self, name) not in choices:
                raise SettingsError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        object.__setattr__(self, "average_bits", _finite("average_bits", self.average_bits))
        object.__setattr__(self, "group_fraction", _finite("group_fraction", self.group_fraction))
        object.__setattr__(self, "allowed_bits", _widths(self.allowed_bits))
        object.__setattr__(self, "locked", {str(k): _lock(k, v) for k, v in dict(self.locked).items()})
        for name in ("seed", "max_groups", "extra_groups"):
            value = getattr(self, name)
            if not _is_integer(value) or value < 0:
                raise SettingsError(f"{name} must be a whole number of at least 0, got {value!r}")
            object.__setattr__(self, name, int(value))
        if not 0.0 < self.group_fraction <= 0.5:
            raise SettingsError(f"group_fraction must be above 0 and at most 0.5, got {self.group_fraction}")
        if self.extra_groups and self.policy not in SWAP_POLICIES:
            raise SettingsError(
                f"extra_groups works with {', '.join(SWAP_POLICIES)}, not with {self.policy}; "
                f"set it to 0 or change the policy"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form; `AllocationSettings(**settings.as_dict())` gives it back."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return values | {"allowed_bits": list(self.allowed_bits), "locked": dict(self.locked)}


def _is_integer(value: object) -> bool:
    """Whether the value counts, whatever its type: 4, 4.0 and numpy's integers do; True and NaN do not."""
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(value) and int(value) == value  # type: ignore[call-overload, arg-type]
    except (TypeError, ValueError):
        return False


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool):
        raise SettingsError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as err:
        raise SettingsError(f"{name} must be a number, got {value!r}") from err
    if not math.isfinite(number):
        raise SettingsError(f"{name} must be a finite number, got {number}")
    return number


def _widths(values: object) -> tuple[int, ...]:
    try:
        listed = tuple(values)  # type: ignore[arg-type, var-annotated]
    except TypeError as err:
        raise SettingsError(f"allowed_bits must be a list of bit-widths, got {values!r}") from err
    wrong = [value for value in listed if not _is_integer(value) or int(value) not in BITS]
    if wrong or not listed:
        raise SettingsError(
            f"allowed_bits must be one or more of {BITS[0]} to {BITS[-1]}, got {list(listed)}"
        )
    return tuple(sorted({int(value) for value in listed}))


def _lock(layer: object, bits: object) -> int:
    if not _is_integer(bits) or int(bits) not in BITS:  # type: ignore[call-overload]
        raise SettingsError(f"layer {layer} can be locked to {BITS[0]} to {BITS[-1]} bits, got {bits!r}")
    return int(bits)  # type: ignore[call-overload, no-any-return]
