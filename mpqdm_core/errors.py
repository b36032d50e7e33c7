"""Every error the library raises on purpose.

MpqdmError
├── ShapeError     a tensor has the wrong number of axes or the wrong size
├── SettingsError  a setting is outside its range, or two settings contradict each other
├── BudgetError    no allocation meets the asked average; carries the feasible range
├── DataError      numbers that cannot be worked with: NaN, empty, not finite
├── LoadError      a file or folder is missing, damaged, or of an unsupported kind
└── Cancelled      the caller asked to stop; nothing was changed
"""

from __future__ import annotations


class MpqdmError(Exception):
    """Base of all deliberate errors; its text is one sentence fit to show to a user."""


class ShapeError(MpqdmError, ValueError):
    """A tensor has the wrong number of axes or the wrong size."""


class SettingsError(MpqdmError, ValueError):
    """A setting is outside its range, or two settings contradict each other."""


class BudgetError(MpqdmError, ValueError):
    """No allocation meets the asked average number of bits."""

    def __init__(self, message: str, *, minimum: float, maximum: float) -> None:
        """Keep the feasible range, in mean bits per weight, beside the sentence."""
        super().__init__(message)
        self.minimum = minimum
        self.maximum = maximum


class DataError(MpqdmError, ValueError):
    """Numbers that cannot be worked with: NaN, infinite, or none at all."""


class LoadError(MpqdmError):
    """A file or folder is missing, damaged, or of an unsupported kind."""


class Cancelled(MpqdmError):  # noqa: N818 - reads as a state, like asyncio.CancelledError; not a fault
    """The caller asked to stop; models and files are as they were before."""
