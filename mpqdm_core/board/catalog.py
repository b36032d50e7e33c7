"""What runs are compared by: settings and metrics in the order of tables, with words and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpqdm_core.board.run import KeptRun, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """One column of numbers."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    quality: bool  # how close the pictures are; the others are what that costs
    hint: str
    minor: bool = False  # left out of short tables


METRICS = (
    MetricInfo(
        name="psnr_db",
        title="PSNR",
        unit="dB",
        higher_is_better=True,
        quality=True,
        hint="Of the pictures against full precision, from the same noise. Higher is closer.",
    ),
    MetricInfo(
        name="ssim",
        title="SSIM",
        unit="",
        higher_is_better=True,
        quality=True,
        hint="Structural similarity of the pictures to full precision. 1 is the same.",
    ),
    MetricInfo(
        name="image_mse",
        title="Picture MSE",
        unit="",
        higher_is_better=False,
        quality=True,
        hint="Mean square error of the pictures, values from 0 to 1. 0 is the same.",
        minor=True,
    ),
    MetricInfo(
        name="latent_snr_db",
        title="Latent SNR",
        unit="dB",
        higher_is_better=True,
        quality=True,
        hint="Signal to error of the final latents. Higher is closer.",
    ),
    MetricInfo(
        name="predicted_error",
        title="Predicted error",
        unit="",
        higher_is_better=False,
        quality=True,
        hint="Of the bit budget, by its error table. Compare it only where errors are weighed alike.",
    ),
    *(
        MetricInfo(
            name=f"{term}_{when}_loss",
            title=f"{title}, {when}",
            unit="",
            higher_is_better=False,
            quality=True,
            hint="On pictures that fine-tuning was not trained on.",
            minor=when != "after",
        )
        for term, title in (("task", "Task loss"), ("relation", "Relation loss"), ("feature", "Feature loss"))
        for when in ("before", "after", "merged")
    ),
    MetricInfo(
        name="nominal_bits",
        title="Nominal bits",
        unit="",
        higher_is_better=False,
        quality=False,
        hint="Mean bits per quantized weight, without scales.",
    ),
    MetricInfo(
        name="effective_bits",
        title="Effective bits",
        unit="",
        higher_is_better=False,
        quality=False,
        hint="Bits per quantized weight with scales and all else they need, counted from the plan.",
    ),
    MetricInfo(
        name="on_disk_bits",
        title="On-disk bits",
        unit="",
        higher_is_better=False,
        quality=False,
        hint="Bits per quantized weight of the real packed file, header and manifest included. "
        "Empty for runs that were kept before files were packed.",
    ),
    MetricInfo(
        name="file_bytes",
        title="Packed file",
        unit="bytes",
        higher_is_better=False,
        quality=False,
        hint="Size of the network's real packed file.",
        minor=True,
    ),
    MetricInfo(
        name="size_mib",
        title="Size",
        unit="MiB",
        higher_is_better=False,
        quality=False,
        hint="Estimate of the packed network, exempt layers included.",
    ),
    MetricInfo(
        name="gbops",
        title="Bit operations",
        unit="GBOPs",
        higher_is_better=False,
        quality=False,
        hint="Multiply-accumulates x weight bits x input bits, of one network call. A count, not a speed.",
    ),
)
"""Everything a run may be measured by, quality first."""

SETTINGS = {
    "policy": "Policy",
    "average_bits": "Weight bits",
    "activation_bits": "Activation bits",
    "weighting": "Errors weighed by",
    "scope": "Budget for",
    "layer_effects": "Layers tried alone",
    "grid": "Levels",
    "finetuning": "Fine-tuning",
    "relation": "TRD",
    "steps": "Steps",
    "batch_size": "Batch",
    "record_pictures": "Teacher's pictures",
    "seed": "Seed",
    "pictures": "Pictures",
    "model": "Model",
}
"""Settings with words for them, in the order of columns; others follow by name."""


def metric_info(name: str) -> MetricInfo:
    """Words for a metric; one that is not known is shown by its name."""
    for info in METRICS:
        if info.name == name:
            return info
    return MetricInfo(name=name, title=name, unit="", higher_is_better=True, quality=False, hint="")


def metrics_of(runs: Iterable[KeptRun]) -> tuple[MetricInfo, ...]:
    """Metrics that at least one run has, in the order of columns."""
    found = {name for run in runs for name in run.metrics}
    known = [info for info in METRICS if info.name in found]
    return (*known, *(metric_info(name) for name in sorted(found - {info.name for info in METRICS})))


def settings_of(runs: Sequence[KeptRun], *, differing: bool = False) -> tuple[str, ...]:
    """Settings that at least one run has, in the order of columns; only those that differ, if asked."""
    found = {name for run in runs for name in run.settings}
    names = [*(name for name in SETTINGS if name in found), *sorted(found - set(SETTINGS))]
    if not differing:
        return tuple(names)
    return tuple(name for name in names if len({_key(run.settings.get(name)) for run in runs}) > 1)


def setting_title(name: str) -> str:
    """Words for a setting."""
    return SETTINGS.get(name, name.replace("_", " "))


def setting_words(name: str, value: Scalar) -> str:
    """A value as tables show it."""
    if value is None:
        return "full precision" if name == "activation_bits" else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(value: Scalar) -> tuple[str, str]:
    """Tells 1 from True and 0 from None."""
    return type(value).__name__ if isinstance(value, bool) or value is None else "", str(value)
