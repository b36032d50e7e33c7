"""Keeping a fine-tuning as a run: its losses, previews, and what the doctor saw, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mpqdm_core.adapter import Adapter
from mpqdm_core.bit_report import report_bits
from mpqdm_core.board import measured as measuring
from mpqdm_core.board.keep_plan import plan_costs, run_id
from mpqdm_core.board.laboratory import Computed
from mpqdm_core.board.run import Curve, KeptRun, Metric, Pictures, Scalar, now
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.doctor import Diagnosis
from mpqdm_core.errors import DataError
from mpqdm_core.intervals import bootstrap_mean
from mpqdm_core.metrics import psnr_db
from mpqdm_core.runs import Run

MAX_FLAGS = 1_500  # letters
KNOBS = (
    "batch_size",
    "window",
    "rank",
    "seed",
    "task_weight",
    "relation_weight",
    "feature_weight",
    "temperature",
    "low_rank_rate",
    "weight_scale_rate",
    "activation_rate",
)


def trained_run(
    run: Run,
    *,
    denoiser: Denoiser,
    seeds: Sequence[int],
    finetuning: str,
    settings: Mapping[str, Scalar] | None = None,
) -> Computed:
    """A fine-tuning as it stands: also one that was stopped, as soon as it has an adapter.

    Args:
        run: with its steps, diagnoses and previews.
        denoiser: the full-precision model it was trained for, with the exempt layers of that time.
        seeds: of the previews.
        finetuning: which losses trained it, in a word or two.
        settings: more by which runs are told apart.

    Raises:
        DataError: it has learned nothing yet.
    """
    if run.adapter is None:
        raise DataError("this run has no adapter yet: wait until it has finished, or stop it")
    adapter = run.adapter
    files, pictures, measured = _previews(run, seeds)
    files.append(adapter.plan.to_json().encode())
    kept = KeptRun(
        id=run_id("finetune", adapter.content_hash),
        kind="finetune",
        title=run.title[:200],
        created=now(),
        settings={
            "model": denoiser.source,
            "policy": adapter.plan.settings.policy,
            "average_bits": adapter.plan.settings.average_bits,
            "activation_bits": adapter.quant_settings.activation_bits,
            "finetuning": finetuning,
            "steps": adapter.steps,
            **{name: getattr(adapter.settings, name) for name in KNOBS},
            "pictures": len(seeds),
            **(settings or {}),
            **_flags(run.diagnoses),
        },
        hashes={
            "model": adapter.denoiser_hash,
            "calibration": adapter.calibration_hash,
            "plan": adapter.plan.content_hash,
            "adapter": adapter.content_hash,
        },
        metrics={**measured, **_losses(adapter), **_costs(adapter, denoiser)},
        curves=_curves(run),
        pictures=pictures,
        plan=measuring.blob_hash(files[-1]),
        seconds={"finetune": round(run.seconds, 3)},
        device=measuring.device_of(denoiser),
        versions=measuring.versions(),
    )
    return Computed(run=kept, files=tuple(files))


def _previews(run: Run, seeds: Sequence[int]) -> tuple[list[bytes], Pictures | None, dict[str, Metric]]:
    """The last previews beside full precision, and how far they are from it."""
    if run.reference is None or not run.previews:
        return [], None, {}
    images = run.previews[-1].images
    files = [measuring.sheet(images), measuring.sheet(run.reference)]
    pictures = Pictures(
        tile=int(images.shape[1]),
        names=tuple(run.names),
        seeds=tuple(int(seed) for seed in seeds),
        drawn=measuring.blob_hash(files[0]),
        reference=measuring.blob_hash(files[1]),
    )
    values = psnr_db(run.reference, images)
    mean = bootstrap_mean(values)
    if not math.isfinite(mean.value):  # the same pixels
        return files, pictures, {}
    whole = all(map(math.isfinite, values))
    metric = Metric(
        value=mean.value,
        low=None if mean.interval is None else mean.interval.low,
        high=None if mean.interval is None else mean.interval.high,
        n=mean.n,
        values=tuple(float(value) for value in values) if whole else (),
    )
    return files, pictures, {"psnr_db": metric}


def _costs(adapter: Adapter, denoiser: Denoiser) -> dict[str, Metric]:
    plan, rounding = adapter.plan, adapter.quant_settings
    report = report_bits(denoiser, plan, rounding, timesteps=len(adapter.timesteps))
    return plan_costs(plan, denoiser.layers, rounding, report)


def _losses(adapter: Adapter) -> dict[str, Metric]:
    """Held-out losses before and after, and with whole zero-points."""
    return {
        f"{name.replace(' ', '_')}_loss": Metric(value=float(value))
        for name, value in adapter.losses.items()
        if math.isfinite(value)
    }


def _curves(run: Run) -> dict[str, Curve]:
    """The loss of every step, PSNR of the previews, and the doctor's numbers."""
    looks = run.diagnoses
    found = {
        "loss": [(record.step, record.loss) for record in run.steps],
        "preview_psnr_db": [(look.step, look.psnr_db) for look in run.previews if look.psnr_db is not None],
        "largest_clipped_share": [
            (look.step, max(look.clipped_inputs.values(), default=0.0)) for look in looks
        ],
        "smallest_scale_ratio": [(look.step, min(look.scale_ratio.values(), default=1.0)) for look in looks],
        "largest_scale_ratio": [(look.step, max(look.scale_ratio.values(), default=1.0)) for look in looks],
    }
    for term in looks[0].term_gradients if looks else ():
        found[f"gradient_{term}"] = [(look.step, look.term_gradients.get(term, 0.0)) for look in looks]
    return {name: _curve(points) for name, points in found.items() if points}


def _curve(points: Sequence[tuple[int, float]]) -> Curve:
    sound = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    return Curve(x=tuple(x for x, _ in sound), y=tuple(y for _, y in sound))


def _flags(looks: Sequence[Diagnosis]) -> dict[str, Scalar]:
    """What the doctor said last; the name has a dot: scripts and files show it, tables do not."""
    return {"doctor.flags": " ".join(looks[-1].flags)[:MAX_FLAGS]} if looks else {}
