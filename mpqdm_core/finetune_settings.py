"""Settings of fine-tuning: what is trained, towards what, and how fast."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mpqdm_core.errors import SettingsError
from mpqdm_core.lora import CONV_FACTORS, ConvFactors

NUMBERS_FROM_ZERO = (
    "task_weight",
    "relation_weight",
    "feature_weight",
    "low_rank_rate",
    "weight_scale_rate",
    "weight_zero_point_rate",
    "activation_rate",
    "bias_rate",
)
COUNTS = ("steps", "batch_size", "window", "shares")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Everything that decides a run, beside model, plan and teacher's record.

    Task and relation losses are means unless `reduction` is "sum". Learning rates decay linearly to zero.
    """

    steps: int = 300  # optimiser steps; each looks at one window
    batch_size: int = 16  # pictures in a window
    window: int = 2  # N consecutive timesteps forwarded together, with one backward pass
    seed: int = 0

    task_weight: float = 1.0  # of the squared difference of predictions
    relation_weight: float = 0.0  # of the relation loss on features averaged over the window
    feature_weight: float = 0.0  # of the squared difference of the same features
    temperature: float = 1.0  # of the relation loss
    pool: int | None = 16  # features are averaged to pool x pool positions for the relation loss
    reduction: Literal["mean", "sum"] = "mean"
    detach_features: bool = False  # the defect of MPQ-DM's released code: the relation loss trains nothing
    task_on: Literal["halves", "guided"] = (
        "halves"  # both rows of guidance, or what the sampler makes of them
    )
    step_weights: Literal["equal", "sampler"] = "equal"  # "sampler": by how far a step moves the latent

    rank: int | None = 32  # of the corrections; None: none
    conv_factors: ConvFactors = "shared"
    start: Literal["zero", "error"] = (
        "zero"  # corrections start at none, or cancel the rounding error's largest part
    )
    low_rank_rate: float = 1 / 2500  # learning rate, in mean weight scales of each layer
    weight_scale_rate: float = 1e-6  # absolute, or in mean scales of each layer
    weight_zero_point_rate: float = 1e-6
    activation_rate: float = 5e-4  # of scales and zero-points, likewise
    bias_rate: float = 0.0  # of the layers' biases, which cost no bits; 0: they stay
    prescaled_rates: bool = True  # rates count in weights and inputs after pre-scaling; False: before it
    relative_rates: bool = False  # weight scales' rates count in their own mean value
    relative_ranges: bool = False  # the rate of activation scales counts in their own first values

    way: Literal["teacher", "student"] = "teacher"  # whose latents are looked at
    shuffle: bool = False  # windows in random order instead of along the way
    shares: int = 2  # parts of a batch that can be worked on at the same time; decides rounding only
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # of the products in the network; "bfloat16" by autocast, for CUDA. Rounding stays float32
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            SettingsError: a value is outside its range.
        """
        for name in COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingsError(f"{name} must be a whole number from 1 up, got {value!r}")
        for name in NUMBERS_FROM_ZERO:
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} must be a finite number from 0 up, got {value!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SettingsError(f"temperature must be above 0, got {self.temperature!r}")
        if self.rank is not None and self.rank < 1:
            raise SettingsError(f"rank must be at least 1, or None for no corrections, got {self.rank}")
        if self.pool is not None and self.pool < 1:
            raise SettingsError(f"pool must be at least 1, or None, got {self.pool}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise SettingsError(f"seed must be a whole number in 0..{2**31 - 1}, got {self.seed!r}")
        for name, allowed in (
            ("reduction", ("mean", "sum")),
            ("task_on", ("halves", "guided")),
            ("step_weights", ("equal", "sampler")),
            ("conv_factors", CONV_FACTORS),
            ("start", ("zero", "error")),
            ("way", ("teacher", "student")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if self.task_weight == self.relation_weight == self.feature_weight == 0:
            raise SettingsError("nothing would be trained: give at least one loss a weight above 0")
        if self.relation_weight > 0 == self.feature_weight == self.task_weight and self.detach_features:
            raise SettingsError(
                "detached features train nothing: give the task a weight, or keep them attached"
            )

    @property
    def needs_features(self) -> bool:
        """Whether any loss looks at features."""
        return self.relation_weight > 0 or self.feature_weight > 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON scalars by field name."""
        return asdict(self)
