"""Commands that draw: sample and compare."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqdm_core.command_line._console import Result, add_output, as_table
from mpqdm_core.command_line._model import add_model, add_student, make_student
from mpqdm_core.errors import DataError, LoadError, SettingsError
from mpqdm_core.progress import Report

if TYPE_CHECKING:
    from mpqdm_core.clip_score import ClipJudge
    from mpqdm_core.denoiser import Denoiser
    from mpqdm_core.intervals import Estimate
    from mpqdm_core.sampling import Samples

NOTE = "samples.json"  # in the folder of pictures: what they are
AT_ONCE = 16  # pictures between two looks at what is there already


def add_commands(commands: Any) -> None:
    """Add the commands of this group to an argparse subparsers object."""
    sample = commands.add_parser("sample", help="draw pictures; goes on where an earlier call was stopped")
    add_model(sample)
    add_student(sample)
    sample.add_argument("--packed", action="store_true", help="the model is a folder that `export` wrote")
    _add_seeds(sample, 16)
    sample.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    add_output(sample)
    sample.set_defaults(work=draw)

    compare = commands.add_parser("compare", help="hold a student's pictures against full precision's")
    add_model(compare)
    add_student(compare)
    _add_seeds(compare, 64)
    compare.add_argument(
        "--sets", action="store_true", help="also as sets (FID and its kin) on the bundled encoder's features"
    )
    compare.add_argument(
        "--clip",
        metavar="MODEL",
        help="also CLIP score, of text-to-image models: a folder or owner/name of the Hub",
    )
    add_output(compare)
    compare.set_defaults(work=hold_against)


def draw(asked: argparse.Namespace, report: Report) -> Result:
    """Write one PNG a seed; those that are there are not drawn again."""
    from PIL import Image

    denoiser = _as_asked(_drawn_with(asked, report), asked)
    note = {"model": denoiser.content_hash, "sampler": repr(denoiser.sampler), "classes": asked.classes}
    if asked.prompts:
        note["prompts"] = asked.prompts
    _check_folder(asked.out, note)
    missing = [seed for seed in _seeds(asked) if not _file(asked.out, seed).exists()]
    for seeds in _parts(missing):
        for seed, image in zip(seeds, _draw(denoiser, asked, seeds, report).images, strict=True):
            partial = _file(asked.out, seed).with_suffix(".part")
            Image.fromarray(image).save(partial, format="png")
            os.replace(partial, _file(asked.out, seed))
    return Result(
        values={"folder": str(asked.out), "drawn": len(missing), "pictures": asked.count},
        text=f"{asked.count} pictures in {asked.out}, {len(missing)} of them drawn now",
    )


def hold_against(asked: argparse.Namespace, report: Report) -> Result:
    """Compare at equal seeds."""
    from mpqdm_core.comparison import compare
    from mpqdm_core.loading import load_denoiser

    denoiser = load_denoiser(asked.model)
    judge = _judge(asked, denoiser)
    student = make_student(asked, denoiser, report)
    if student is None:
        raise SettingsError("there is nothing to compare: give --plan or --adapter")
    seeds = _seeds(asked)
    denoiser = _as_asked(denoiser, asked)
    reference = _draw(denoiser, asked, seeds, report)
    candidate = _draw(_as_asked(student.denoiser, asked), asked, seeds, report)
    comparison = compare(reference, candidate, encoder=_encoder(asked), report=report)
    values: dict[str, Any] = {"pictures": comparison.n, "notes": comparison.notes}
    for name in ("image_psnr_db", "image_ssim", "image_mse", "latent_snr_db"):
        metric = getattr(comparison, name)
        if metric is not None:
            values[name] = _written(metric.mean)
    if comparison.distribution is not None:
        for name in ("fid", "sfid", "kid", "precision", "recall", "inception_score"):
            values[name] = {"mean": getattr(comparison.distribution, name).value}
    if judge is not None:
        for name, drawn in (("clip_score", candidate), ("clip_score_full_precision", reference)):
            values[name] = _written(_clip_score(judge, denoiser, drawn, report))
    rows = [
        (name, entry["mean"], _between(entry)) for name, entry in values.items() if isinstance(entry, dict)
    ]
    text = as_table(("metric", "mean", "95% interval"), rows)
    return Result(values=values, text="\n".join([text, *comparison.notes]))


def _judge(asked: argparse.Namespace, denoiser: Denoiser) -> ClipJudge | None:
    """The CLIP model that was asked for, before anything is drawn."""
    from mpqdm_core.clip_score import load_clip
    from mpqdm_core.families import FAMILIES

    if asked.clip is None:
        return None
    if not FAMILIES[denoiser.family].prompted:
        raise SettingsError(f"--clip needs a text-to-image model: {denoiser.name} takes no prompts")
    return load_clip(asked.clip)


def _clip_score(judge: ClipJudge, denoiser: Denoiser, drawn: Samples, report: Report) -> Estimate:
    from mpqdm_core.clip_score import clip_scores
    from mpqdm_core.intervals import bootstrap_mean

    prompts = [denoiser.class_names[label] for label in drawn.labels] if drawn.labels is not None else []
    return bootstrap_mean(clip_scores(judge, drawn.images, prompts, report=report), seed=0)


def _written(estimate: Estimate) -> dict[str, float | None]:
    interval = estimate.interval
    return {
        "mean": estimate.value,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }


def _add_seeds(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("--count", type=int, default=count, help="pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the others follow")
    parser.add_argument(
        "--classes", type=int, nargs="*", help="numbers, taken in turn; without them all classes are"
    )
    parser.add_argument(
        "--prompts", nargs="+", help="of a text-to-image model, taken in turn; without them its own are"
    )


def _seeds(asked: argparse.Namespace) -> list[int]:
    if asked.count < 1:
        raise SettingsError(f"--count must be at least 1, got {asked.count}")
    return list(range(asked.seed, asked.seed + asked.count))


def _as_asked(denoiser: Denoiser, asked: argparse.Namespace) -> Denoiser:
    """The model with the prompts of the command line; they take the place of its classes."""
    from mpqdm_core.families import with_prompts

    return with_prompts(denoiser, tuple(asked.prompts)) if asked.prompts else denoiser


def _draw(denoiser: Denoiser, asked: argparse.Namespace, seeds: list[int], report: Report) -> Samples:
    """Draw these seeds; a picture's class follows from its seed, so that no picture depends on the others."""
    from mpqdm_core.sampling import sample

    classes = asked.classes or list(range(denoiser.num_classes or 0))
    labels = [classes[seed % len(classes)] for seed in seeds] if classes else None
    return sample(denoiser, labels=labels, seeds=seeds, report=report)


def _drawn_with(asked: argparse.Namespace, report: Report) -> Denoiser:
    from mpqdm_core.loading import load_denoiser
    from mpqdm_core.packing import load_packed

    if asked.packed:
        if asked.plan is not None or asked.adapter is not None:
            raise SettingsError("a packed model is quantized already: leave --plan and --adapter out")
        return load_packed(asked.model).denoiser
    denoiser = load_denoiser(asked.model)
    student = make_student(asked, denoiser, report)
    return denoiser if student is None else student.denoiser


def _check_folder(folder: Path, note: dict[str, Any]) -> None:
    """Refuse to mix pictures of two models."""
    path = folder / NOTE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != note:
            raise DataError(f"{folder} holds other pictures (model or classes differ): choose another")
        path.write_text(json.dumps(note), encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise LoadError(f"{folder} cannot be used for pictures: {error}") from error


def _file(folder: Path, seed: int) -> Path:
    return folder / f"{seed:08d}.png"


def _parts(seeds: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(seeds), AT_ONCE):
        yield seeds[start : start + AT_ONCE]


def _encoder(asked: argparse.Namespace) -> Any:
    if not asked.sets:
        return None
    from mpqdm_core.zoo.encoder import load_encoder

    return load_encoder()


def _between(entry: dict[str, Any]) -> str:
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None else f"{low:.4g} to {high:.4g}"
