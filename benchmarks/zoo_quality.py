"""How good the bundled models are: do they draw what is asked, and FID beside that of two real sets.

    python -m benchmarks.zoo_quality [--quick]

Every model in assets/models that can be sampled is measured, on the features of `sprites-encoder`: class
accuracy of a model of classes, caption agreement of a text-to-image model, precision of an unconditional one.
`--quick` draws few pictures instead of 5,000. The model cards quote the results file.
"""

from __future__ import annotations

from benchmarks._record import Figure, arguments, record
from mpqdm_core.bundled import bundled_models
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.loading import load_denoiser
from mpqdm_core.zoo.quality import Quality, measure_quality

CLASS_ACCURACY_BAR = 0.95
CAPTION_AGREEMENT_BAR = 0.9  # of all that a caption names, which is up to four things
SAMPLES, QUICK_SAMPLES, QUICK_PIXEL_SAMPLES = 5000, 200, 50
ACCURACY_SAMPLES = 1000


def figures_of(key: str, quality: Quality) -> dict[str, Figure]:
    """The figures of one model, by name."""
    figures: dict[str, Figure] = {}
    for name, found, bar in (
        ("class_accuracy", quality.class_accuracy, CLASS_ACCURACY_BAR),
        ("caption_agreement", quality.caption_agreement, CAPTION_AGREEMENT_BAR),
    ):
        if found is not None:
            figures[f"{name}_{key}"] = Figure(found.value, "share", bar=bar, met=found.value >= bar)
    figures[f"fid_{key}"] = Figure(quality.fid.value, "FID to real pictures")
    figures[f"fid_of_real_{key}"] = Figure(quality.fid_of_real.value, "FID between two real sets")
    if quality.precision is not None:
        figures[f"precision_{key}"] = Figure(
            quality.precision.value, "share on the manifold of real pictures"
        )
    figures[f"samples_{key}"] = Figure(float(quality.fid.n), "pictures")
    if quality.precision is None:
        figures[f"guidance_{key}"] = Figure(quality.settings.guidance_scale, "guidance scale")
    return figures


def samples_for(denoiser: Denoiser, quick: bool) -> int:
    """How many pictures to draw; those of a pixel-space model take longer."""
    if not quick:
        return SAMPLES
    return QUICK_PIXEL_SAMPLES if denoiser.num_classes is None else QUICK_SAMPLES


def main() -> None:
    """Measure every bundled model."""
    quick = arguments(__doc__).quick
    figures: dict[str, Figure] = {}
    repeats: dict[str, list[float]] = {}
    for card in bundled_models():
        denoiser = load_denoiser(card.name)
        samples = samples_for(denoiser, quick)
        quality = measure_quality(denoiser, samples=samples, accuracy_samples=min(ACCURACY_SAMPLES, samples))
        found = figures_of(card.name.replace("-", "_"), quality)
        figures |= found
        first, figure = next(iter(found.items()))
        repeats[first] = [figure.value]
    record("zoo_quality", figures=figures, repeats=repeats, seed=0)


if __name__ == "__main__":
    main()
