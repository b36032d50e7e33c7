"""From a moved budget slider to the heatmap's new data, as the page's own handler returns it.

`ms` is the median of 20 calls with 20 different averages, nothing solved before: allocation, figures, and
their JSON text. Run with `python -m benchmarks.slider`; it takes seconds, so `--quick` changes nothing.
"""

from __future__ import annotations

import statistics
import time

from benchmarks._record import Figure, arguments, record
from pages import budget
from pages._precomputed import DEFAULT_MODEL
from pages._workspace import ALLOCATIONS

BAR_MS = 100.0
REPEATS = 20
FIRST = 1.5  # bits
STEP = 0.3


def move(average: float) -> float:
    """Milliseconds that the handler takes for a new average."""
    controls = (average, 8, False, list(range(1, 9)), "optimal", "sensitivity", "model", {})
    begin = time.perf_counter()
    outputs = budget.on_budget(DEFAULT_MODEL, (None, None), *controls)
    elapsed = (time.perf_counter() - begin) * 1e3
    if not outputs[2].get("fig"):
        raise RuntimeError(f"the handler refused: {outputs[0]}")
    return elapsed


def main() -> None:
    """Move the slider and write the record."""
    arguments(__doc__)
    first = move(4.0)  # imports, reads the tables, traces the frontier: the page does this when it opens
    ALLOCATIONS.clear()
    cold = move(4.0)
    times = [move(FIRST + STEP * turn) for turn in range(REPEATS)]
    median = statistics.median(times)
    record(
        "slider",
        figures={
            "ms": Figure(median, "ms", BAR_MS, median < BAR_MS),
            "first_ms": Figure(first, "ms"),
            "with_frontier_ms": Figure(cold, "ms"),
        },
        repeats={"ms": times},
        seed=0,
    )


if __name__ == "__main__":
    main()
