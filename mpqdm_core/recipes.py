"""Named ways from a full-precision model to a quantized one: allocation, rounding and fine-tuning together.

A recipe that carries a paper's name says how it differs from what that paper did. All of them are scaled down
for models and machines of this size: hundreds of optimiser steps instead of 16,000 and more, with learning
rates raised by one common factor (`RATE_FACTOR`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mpqdm_core.allocation import Allocation, AllocationSettings, allocate
from mpqdm_core.calibration import Calibration
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.sensitivity import channel_sensitivity

PUBLISHED_STEPS = 16_000  # of EfficientDM and MPQ-DM on LDM-4 ImageNet
RATE_FACTOR = 10.0  # on the published learning rates, the same for every recipe; see the README on its choice
SCALED_DOWN = (
    f"scaled down: hundreds of steps instead of {PUBLISHED_STEPS:,}, learning rates times {RATE_FACTOR:g}"
)
OWN_RANGES = "input ranges start from each timestep's own values"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to quantize and fine-tune, at any number of bits.

    Attributes:
        name: key in `RECIPES`.
        title: for tables.
        differs: how it differs from what was published under that name.
        allocation: policy and limits; the average is filled in.
        quantization: rounding; activation bits are filled in.
        finetuning: losses and rates; steps and seed are filled in. None: no fine-tuning.
    """

    name: str
    title: str
    differs: str
    allocation: AllocationSettings
    quantization: QuantSettings
    finetuning: FinetuneSettings | None

    def quant_settings(self, activation_bits: int | None) -> QuantSettings:
        """The rounding at these activation bits."""
        return replace(self.quantization, activation_bits=activation_bits)

    def finetune_settings(self, steps: int, seed: int, **changes: Any) -> FinetuneSettings | None:
        """The fine-tuning over so many steps, or None."""
        if self.finetuning is None:
            return None
        return replace(self.finetuning, steps=steps, seed=seed, **changes)

    def measure(
        self,
        denoiser: Denoiser,
        calibration: Calibration,
        *,
        activation_bits: int | None,
        rows: RowSettings | None = None,
        report: Report = silent,
    ) -> ErrorTable:
        """Measure what the policy needs, with this recipe's own rounding.

        Args:
            denoiser: full precision.
            calibration: taken from it.
            activation_bits: of every quantizable layer's input.
            rows: of the error table; None takes the defaults.
            report: told the progress of each measurement.
        """
        weighted = self.allocation.weighting == "sensitivity"
        return measure_error_table(
            denoiser,
            calibration,
            self.quant_settings(activation_bits),
            report=report,
            rows=rows,
            sensitivity=channel_sensitivity(denoiser, calibration, report=report) if weighted else None,
        )

    def allocate(self, table: ErrorTable, weight_bits: float) -> Allocation:
        """Give out the bits.

        Args:
            table: as `measure` leaves it.
            weight_bits: average of the budget.

        Raises:
            BudgetError: the average cannot be met.
        """
        return allocate(table, replace(self.allocation, average_bits=weight_bits))


_PUBLISHED_RATES: Mapping[str, Any] = MappingProxyType(
    {
        "rank": 32,
        "low_rank_rate": RATE_FACTOR / 2500,
        "weight_scale_rate": RATE_FACTOR * 1e-6,
        "weight_zero_point_rate": RATE_FACTOR * 1e-6,
        "activation_rate": RATE_FACTOR * 5e-4,
    }
)
_AS_PUBLISHED = QuantSettings(grid="affine", range_exponent=2.4, prescale_alpha=0.5)
_UNIFORM = AllocationSettings(policy="uniform")

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="naive",
                title="rounding only",
                differs="no paper: uniform bits, searched ranges, input ranges per timestep, no training",
                allocation=_UNIFORM,
                quantization=replace(_AS_PUBLISHED, prescale_alpha=None),
                finetuning=None,
            ),
            Recipe(
                name="efficientdm",
                title="EfficientDM",
                differs=f"{SCALED_DOWN}; {OWN_RANGES}; windows of two steps",
                allocation=_UNIFORM,
                quantization=replace(_AS_PUBLISHED, prescale_alpha=None),
                finetuning=FinetuneSettings(conv_factors="shared", **_PUBLISHED_RATES),
            ),
            Recipe(
                name="mpqdm-as-released",
                title="MPQ-DM as released",
                differs=(
                    f"{SCALED_DOWN}; {OWN_RANGES}; the search over groups rounds as deployed; "
                    "the relation loss is detached, as in the released code"
                ),
                allocation=AllocationSettings(policy="kurtosis", max_groups=1),
                quantization=_AS_PUBLISHED,
                finetuning=FinetuneSettings(
                    conv_factors="per-tap",
                    relation_weight=100.0,
                    reduction="sum",
                    detach_features=True,
                    **_PUBLISHED_RATES,
                ),
            ),
            Recipe(
                name="mpqdm-corrected",
                title="MPQ-DM corrected",
                differs=(
                    f"{SCALED_DOWN}; {OWN_RANGES}; up to five groups, as the paper says; "
                    "the relation loss trains the student, as a mean with weight 1; pre-scaling does not "
                    "change what learning rates count in"
                ),
                allocation=AllocationSettings(policy="kurtosis", max_groups=5),
                quantization=_AS_PUBLISHED,
                finetuning=FinetuneSettings(
                    conv_factors="per-tap", relation_weight=1.0, prescaled_rates=False, **_PUBLISHED_RATES
                ),
            ),
            Recipe(
                name="ours",
                title="ours",
                differs=(
                    "levels at half steps, whole-model bits by sensitivity, task loss on guided predictions, "
                    "weight scales that train in proportion to themselves, corrections that learn four times "
                    "as fast, rates before pre-scaling; everything else as the others"
                ),
                allocation=AllocationSettings(policy="optimal", weighting="sensitivity", scope="model"),
                quantization=replace(_AS_PUBLISHED, grid="mid-rise"),
                finetuning=FinetuneSettings(
                    **{
                        **_PUBLISHED_RATES,
                        "task_on": "guided",
                        "low_rank_rate": 4 * RATE_FACTOR / 2500,
                        "prescaled_rates": False,
                        "relative_rates": True,
                        "weight_scale_rate": 2e-3,
                    }
                ),
            ),
        )
    }
)
"""Every recipe by name, from the plainest to the best known here."""


def get_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        SettingsError: there is none.
    """
    if name not in RECIPES:
        raise SettingsError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
