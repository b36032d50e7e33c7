"""How long the error table of the bundled model takes: eight bit-widths of every channel of every layer.

`s` is the median wall time of `measure_error_table` with its default rows and settings, on two threads;
`sensitivity_s` and `calibration_s` are the two other things a page waits for before the first allocation. The
calibration is not part of `s`. Run with `python -m benchmarks.error_table`; `--quick` measures once.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import measure_error_table
from mpqdm_core.sensitivity import channel_sensitivity

MODEL = "sprites-ldm"
BAR_S = 30.0
SEED = 0
THREADS = 2


def measure(denoiser: Denoiser, repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat: calibration, table, sensitivity."""
    times: dict[str, list[float]] = {"calibration_s": [], "s": [], "sensitivity_s": []}
    for _ in range(repeats):
        start = time.perf_counter()
        calibration = calibrate(denoiser, CalibrationSettings(seed=SEED))
        calibrated = time.perf_counter()
        measure_error_table(denoiser, calibration)
        measured = time.perf_counter()
        channel_sensitivity(denoiser, calibration, seed=SEED)
        times["calibration_s"].append(calibrated - start)
        times["s"].append(measured - calibrated)
        times["sensitivity_s"].append(time.perf_counter() - measured)
    return times


def main() -> None:
    """Measure and write the record."""
    from benchmarks._record import Figure, record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once instead of three times")
    repeats = 1 if parser.parse_args().quick else 3
    torch.set_num_threads(THREADS)
    times = measure(load_denoiser(MODEL), repeats)
    values = {name: statistics.median(seconds) for name, seconds in times.items()}
    figures = {
        name: Figure(
            value=value,
            unit="s",
            bar=BAR_S if name == "s" else None,
            met=value < BAR_S if name == "s" else None,
        )
        for name, value in values.items()
    }
    record("error_table", figures=figures, repeats=times, seed=SEED)


if __name__ == "__main__":
    main()
