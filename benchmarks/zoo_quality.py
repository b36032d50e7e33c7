"""How good the bundled models are: class accuracy, and FID beside that of two sets of real pictures.

    python -m benchmarks.zoo_quality [--quick]

Figures are on the features of `sprites-encoder`. `--quick` draws 200 pictures instead of 5,000. The
model cards quote the results file.
"""

from __future__ import annotations

from benchmarks._record import Figure, arguments, record
from mpqdm_core.loading import load_denoiser
from mpqdm_core.progress import silent
from mpqdm_core.zoo.quality import measure_quality

MODELS = ("sprites-ldm",)
CLASS_ACCURACY_BAR = 0.95
SAMPLES, QUICK_SAMPLES = 5000, 200
ACCURACY_SAMPLES = 1000


def main() -> None:
    """Measure every bundled model."""
    quick = arguments(__doc__).quick
    figures: dict[str, Figure] = {}
    repeats: dict[str, list[float]] = {}
    for name in MODELS:
        samples = QUICK_SAMPLES if quick else SAMPLES
        quality = measure_quality(
            load_denoiser(name),
            samples=samples,
            accuracy_samples=min(ACCURACY_SAMPLES, samples),
            report=silent,
        )
        accuracy = quality.class_accuracy.value
        key = name.replace("-", "_")
        figures[f"class_accuracy_{key}"] = Figure(
            accuracy, "share", bar=CLASS_ACCURACY_BAR, met=accuracy >= CLASS_ACCURACY_BAR
        )
        figures[f"fid_{key}"] = Figure(quality.fid.value, "FID to real pictures")
        figures[f"fid_of_real_{key}"] = Figure(quality.fid_of_real.value, "FID between two real sets")
        figures[f"samples_{key}"] = Figure(float(samples), "pictures")
        figures[f"guidance_{key}"] = Figure(quality.settings.guidance_scale, "guidance scale")
        repeats[f"class_accuracy_{key}"] = [accuracy]
    record("zoo_quality", figures=figures, repeats=repeats, seed=0)


if __name__ == "__main__":
    main()
