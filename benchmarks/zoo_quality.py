"""How good the bundled models are: do they draw what is asked, and FID beside that of two real sets.

    python -m benchmarks.zoo_quality [--quick] [--model sprites-dit]

Every model in assets/models that can be sampled is measured, on the features of `sprites-encoder`: class
accuracy of a model of classes, caption agreement of a text-to-image model, precision of an unconditional one.
`--quick` draws few pictures instead of 5,000. With `--model` only one is, and the results file keeps what it
holds of the others, with the commit at which that was measured (not with `--quick`). The model cards quote
the results file.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks._record import RESULTS, Figure, record
from mpqdm_core.bundled import bundled_models
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.loading import load_denoiser
from mpqdm_core.zoo.quality import Quality, measure_quality

CLASS_ACCURACY_BAR = 0.95
CAPTION_AGREEMENT_BAR = 0.9  # of all that a caption names, which is up to four things
SAMPLES, QUICK_SAMPLES, QUICK_PIXEL_SAMPLES = 5000, 200, 50
ACCURACY_SAMPLES = 1000


def key_of(name: str) -> str:
    """How a model's figures end."""
    return name.replace("-", "_")


def kept(content: dict[str, Any], model: str) -> tuple[dict[str, Figure], dict[str, list[float]], list[str]]:
    """Figures, repeats and notes of a results file without those of one model."""
    others = {name: entry for name, entry in content["figures"].items() if not name.endswith(key_of(model))}
    figures = {name: Figure(**entry) for name, entry in others.items()}
    repeats = {name: entry["raw"] for name, entry in content["repeats"].items() if name in figures}
    note = f"Figures of other models than {model} were measured at commit {content['commit']}."
    return figures, repeats, [*content["notes"], note]


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
    """Measure every bundled model, or the one asked for."""
    names = [card.name for card in bundled_models()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller, under 50 s on two cores")
    parser.add_argument("--model", choices=names, help="only this one; figures of the others are kept")
    asked = parser.parse_args()
    figures: dict[str, Figure] = {}
    repeats: dict[str, list[float]] = {}
    notes: list[str] = []
    if asked.model is not None and not asked.quick:  # few pictures and many do not go into one file
        figures, repeats, notes = kept(json.loads((RESULTS / "zoo_quality.json").read_text()), asked.model)
    for name in names if asked.model is None else [asked.model]:
        denoiser = load_denoiser(name)
        samples = samples_for(denoiser, asked.quick)
        quality = measure_quality(denoiser, samples=samples, accuracy_samples=min(ACCURACY_SAMPLES, samples))
        found = figures_of(key_of(name), quality)
        figures |= found
        first, figure = next(iter(found.items()))
        repeats[first] = [figure.value]
    record("zoo_quality", figures=figures, repeats=repeats, seed=0, notes=notes)


if __name__ == "__main__":
    main()
