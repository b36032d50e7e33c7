"""This library's best plan at a given number of effective bits, its tables counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mpqdm_core import AllocationSettings, QuantSettings, allocate, measure_error_table, quantize
from mpqdm_core.allocation import Allocation
from mpqdm_core.bit_report import report_bits
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.measure import RowSettings
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.sensitivity import channel_sensitivity

# Weights only; exempt layers stay in full precision, as they do for everybody else here.
WAYS = tuple(
    QuantSettings(activation_bits=None, exempt_bits=None, grid=grid, prescale_alpha=alpha)
    for grid in ("mid-rise", "affine")
    for alpha in (None, 0.5)
)
POLICY = AllocationSettings(policy="optimal", weighting="sensitivity", scope="model")
HALVINGS = 12  # of the interval of average bits: to 0.002 bits
SMALLEST, LARGEST = 1.0, 8.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Ours:
    """Error tables of the first few ways to round, measured once."""

    denoiser: Denoiser
    calibration: Calibration
    tables: Sequence[ErrorTable]

    def best(self, effective_bits: float) -> QuantizedDenoiser:
        """Quantize with the least predicted error at no more effective bits; pictures play no part in it."""
        found = [
            (self._at(table, way, effective_bits), way) for table, way in zip(self.tables, WAYS, strict=False)
        ]
        allocation, way = min(found, key=lambda pair: pair[0].predicted_error)
        return quantize(self.denoiser, self.calibration, allocation.plan, way)

    def _at(self, table: ErrorTable, way: QuantSettings, effective_bits: float) -> Allocation:
        low, high = SMALLEST, LARGEST
        best = allocate(table, replace(POLICY, average_bits=low))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            tried = allocate(table, replace(POLICY, average_bits=middle))
            if report_bits(self.denoiser, tried.plan, way, timesteps=0).effective_bits <= effective_bits:
                low, best = middle, tried
            else:
                high = middle
        return best


def measure_ours(denoiser: Denoiser, calibration: Calibration, rows: RowSettings, ways: int) -> Ours:
    """Measure what every bit is worth, once for each of the first `ways` to round."""
    sensitivity = channel_sensitivity(denoiser, calibration)
    tables = [
        measure_error_table(denoiser, calibration, way, rows=rows, sensitivity=sensitivity)
        for way in WAYS[:ways]
    ]
    return Ours(denoiser=denoiser, calibration=calibration, tables=tables)
