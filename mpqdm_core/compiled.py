"""Functions compiled by numba at the first call on a machine; later processes read what was kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function, and keep it unless there is no place for that (a read-only installation).

    What is kept is renewed when the function's own file changes: options stand there, and so does everything
    that the function calls.

    Args:
        options: of `numba.njit`.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept: Callable[..., Any] = njit(cache=True, **options)(function)
        except RuntimeError:
            kept = njit(**options)(function)
        return kept

    return compile_
