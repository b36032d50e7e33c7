"""From compared pictures to what the Compare page shows."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from mpqdm_core.errors import LoadError
from pages._bridge import dumps
from pages._compare_work import Compared, Variant
from pages._figures_compare import step_figure
from pages._html import table
from pages._model_view import png_address
from pages._precomputed import Precomputed

METRICS = (
    ("image_psnr_db", "PSNR of the pictures", "dB", "higher is closer"),
    ("image_ssim", "SSIM of the pictures", "", "1 is the same"),
    ("image_mse", "Mean square error of the pictures", "", "0 is the same"),
    ("latent_mse", "Mean square error of the latents", "", "0 is the same"),
    ("latent_snr_db", "Signal to error of the latents", "dB", "higher is closer"),
)
BITS = (
    "Nominal bits of a weight (codes alone)",
    "Effective bits (with scales, maps and ranges)",
    "On-disk bits (of the packed file, with manifest)",
)


def pair(found: Compared) -> str:
    """What assets/js/compare.js shows."""
    return dumps(
        {
            "tile": found.tile,
            "columns": len(found.timesteps) + 1,
            "timesteps": list(found.timesteps),
            "reference": _picture(found.reference),
            "variants": [_picture(variant) for variant in found.variants],
            "samples": [_sample(found, place) for place in range(len(found.order.seeds))],
        }
    )


def shipped_pair(model: str) -> str:
    """The comparison that ships with a bundled model; empty when there is none."""
    shipped = Precomputed.find(model)
    samples = shipped.samples() if shipped else None
    if shipped is None or samples is None:
        return ""
    try:
        seeds = samples["seeds"]
        labels = [_class(shipped, label) for label in samples.get("labels") or [""] * len(seeds)]
        steps = list(samples.get("timesteps", []))
        return dumps(
            {
                "tile": int(samples["tile"]),
                "columns": len(steps) + 1,
                "timesteps": steps,
                "reference": _shipped(shipped, samples["reference"]),
                "variants": [_shipped(shipped, variant) for variant in samples["variants"]],
                "samples": [_named(label, seed) for seed, label in zip(seeds, labels, strict=True)],
            }
        )
    except (KeyError, TypeError, ValueError) as err:
        raise LoadError(f"samples.json that ships with {model} is damaged: {err!r}") from err


def shipped_metrics(model: str) -> str:
    """The figures that ship with a bundled model's comparison."""
    shipped = Precomputed.find(model)
    samples = shipped.samples() if shipped else None
    variants = [] if samples is None else [v for v in samples.get("variants", []) if v.get("figures")]
    if not variants:
        return ""
    names = list(variants[0]["figures"])
    rows = [
        [str(variant["title"]), *(str(variant["figures"].get(name, "")) for name in names)]
        for variant in variants
    ]
    return table(["Against full precision", *names], rows)


def metrics(found: Compared) -> str:
    """Paired metrics with means and intervals, one column a variant."""
    rows = []
    for name, words, unit, hint in METRICS:
        values = [getattr(variant.comparison, name) for variant in found.variants]
        if any(value is not None for value in values):
            rows.append([f"{words} ({hint})", *(_estimate(value, unit) for value in values)])
    if all(variant.packed is not None for variant in found.variants):
        columns = [_bits(variant.packed) for variant in found.variants]
        rows += [[words, *cells] for words, *cells in zip(BITS, *columns, strict=True)]
    notes = list(dict.fromkeys(note for variant in found.variants for note in variant.comparison.notes))
    count = len(found.order.seeds)
    many = f"Mean over {count} pictures with a 95 % interval over seeds" if count > 1 else "One picture"
    told = f"{many}: how close, not how good; that is measured below, as a set."
    words = " ".join([told, *notes])
    return (
        table(["Against full precision", *(variant.title for variant in found.variants)], rows)
        + f"<p class='mpq-hint'>{words}</p>"
    )


def by_step(found: Compared) -> str:
    """Signal to error of the latent at every step."""
    curves = {
        variant.title: (
            variant.comparison.trajectory.timesteps,
            variant.comparison.trajectory.latent_snr_db.mean(axis=1),
        )
        for variant in found.variants
        if variant.comparison.trajectory is not None
    }
    return dumps(step_figure(curves)) if curves else ""


def _bits(packed: Any) -> tuple[str, str, str]:
    report = packed.manifest.bit_report
    return f"{report.nominal_bits:.3f}", f"{report.effective_bits:.3f}", f"{packed.bits_on_disk:.3f}"


def _class(shipped: Precomputed, label: Any) -> str:
    names = shipped.card().get("class_names", ())
    return str(names[label]) if isinstance(label, int) and 0 <= label < len(names) else str(label)


def _picture(variant: Variant) -> dict[str, Any]:
    return {"key": variant.key, "title": variant.title, "src": png_address(Image.fromarray(variant.sheet))}


def _shipped(shipped: Precomputed, entry: dict[str, Any]) -> dict[str, Any]:
    # An address and not the picture: the browser fetches it when somebody looks, not with the first page.
    source = f"gradio_api/file={shipped.picture_file(entry['file'])}"
    return {"key": str(entry["key"]), "title": str(entry["title"]), "src": source}


def _sample(found: Compared, place: int) -> dict[str, str]:
    labels = found.order.labels
    return _named(found.class_names[labels[place]] if labels else "", found.order.seeds[place])


def _named(name: str, seed: int) -> dict[str, str]:
    """What a picture is called, by its seed alone where nothing was asked."""
    return {"label": name or f"seed {seed}", "text": f"{name}, seed {seed}" if name else f"seed {seed}"}


def _estimate(metric: Any, unit: str) -> str:
    if metric is None:
        return "n/a"
    mean = metric.mean
    shown = "∞" if math.isinf(mean.value) else f"{mean.value:.4g}"
    interval = "" if mean.interval is None else f"  [{mean.interval.low:.4g}, {mean.interval.high:.4g}]"
    same = f", {mean.infinite} identical" if mean.infinite else ""
    return f"{shown}{' ' + unit if unit else ''}{interval}{same}"
