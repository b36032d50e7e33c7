"""How long one allocation takes on a table of 300,000 channels at 8 bit-widths.

`ms_<policy>` is the median wall time in the slowest of four cases (per layer and whole model, an average that
is a bit-width and one that is not). Nothing is kept between calls, and the first call is among the repeats;
its time is also kept apart as `first_ms_<policy>`. Run with `python -m benchmarks.allocation`, `--quick` for
fewer repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from mpqdm_core.allocation import POLICIES, SCOPES, AllocationSettings, allocate
from mpqdm_core.error_table import BITS, ErrorTable

CHANNELS = 300_000
LAYERS = 500
BAR_MS = 100.0
AVERAGES = (3.0, 3.7)
SEED = 0


def synthetic(layers: int, channels: int, seed: int) -> ErrorTable:
    """A table shaped like a large U-Net's: uneven layers, noisy error curves that level off at high bits."""
    rng = np.random.default_rng(seed)
    sizes = 4 + rng.multinomial(channels - 4 * layers, rng.dirichlet(np.full(layers, 2.0)))
    scale = np.exp(rng.normal(0.0, 1.5, (channels, 1)))
    noise = np.exp(rng.normal(0.0, 0.25, (channels, len(BITS))))
    return ErrorTable(
        layer_names=tuple(f"layer.{index}" for index in range(layers)),
        layer_start=np.concatenate([[0], np.cumsum(sizes)]),
        weights_per_channel=rng.choice([64, 288, 320, 576, 1152, 2880, 5760, 11520], layers),
        error=scale * (4.0 ** -np.array(BITS) * noise + 1e-4),
        energy=scale[:, 0],
        kurtosis=3 + rng.exponential(2.0, channels),
        sensitivity=rng.exponential(1.0, channels),
    )


def time_policy(table: ErrorTable, policy: str, repeats: int) -> list[float]:
    """Wall times in ms, first call first, of the case with the largest median."""
    cases = []
    for scope in SCOPES:
        for average in AVERAGES:
            settings = AllocationSettings(policy=policy, scope=scope, average_bits=average)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                allocate(table, settings)
                times.append((time.perf_counter() - start) * 1e3)
            cases.append(times)
    return max(cases, key=statistics.median)


def main() -> None:
    """Time every policy and write the record."""
    from benchmarks._record import Figure, record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="7 repeats a case instead of 25")
    repeats = 7 if parser.parse_args().quick else 25
    table = synthetic(LAYERS, CHANNELS, SEED)
    figures, measured = {}, {}
    for policy in POLICIES:
        times = time_policy(table, policy, repeats)
        name = f"ms_{policy.replace('-', '_')}"
        value = statistics.median(times)
        figures[name] = Figure(value=value, unit="ms", bar=BAR_MS, met=value < BAR_MS)
        measured[name] = times
        measured[f"first_{name}"] = times[:1]
    record("allocation", figures=figures, repeats=measured, seed=SEED)


if __name__ == "__main__":
    main()
