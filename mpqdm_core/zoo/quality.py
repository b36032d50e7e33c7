"""How good a bundled model is: do its pictures show what was asked for, and do they look like the data?

What is asked is a class, a caption or nothing. `sprites-encoder` names kind, colour, size and background of a
picture; a sample agrees with what was asked when it names nothing else for any attribute that was named.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.distribution import DistributionalResult, frechet_distance
from mpqdm_core.encoding import EncodedSet, encode
from mpqdm_core.errors import SettingsError
from mpqdm_core.families import FAMILIES, with_prompts
from mpqdm_core.intervals import Estimate, bootstrap_mean
from mpqdm_core.neighbours import precision_recall
from mpqdm_core.progress import Report, silent
from mpqdm_core.sampling import sample
from mpqdm_core.zoo import captions, sprites
from mpqdm_core.zoo.encoder import HEADS, load_encoder

REAL_STREAM = 5  # held-out pictures: no training command reads this stream
OTHER_REAL_STREAM = 6
CAPTION_STREAM = 9  # of scenes whose captions are asked
BATCH = 100

Asked = Mapping[str, tuple[str, ...]]
"""For each attribute that is asked for, the values that would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What to ask a model: the model with its prompts, and for each sample its label and what it names."""

    denoiser: Denoiser
    labels: list[int] | None  # None: nothing can be asked
    asked: tuple[Asked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of a bundled model, on the features of `sprites-encoder`."""

    class_accuracy: Estimate | None  # share of samples recognised as the class that was asked for
    caption_agreement: Estimate | None  # share of samples in which all that the caption names is recognised
    fid: DistributionalResult  # samples against held-out real pictures
    fid_of_real: DistributionalResult  # two disjoint sets of real pictures of the same size: the floor
    precision: DistributionalResult | None  # of a model that cannot be asked: samples that look real
    settings: SamplerSettings


def measure_quality(
    denoiser: Denoiser,
    *,
    samples: int = 5000,
    accuracy_samples: int = 1000,
    settings: SamplerSettings | None = None,
    report: Report = silent,
) -> Quality:
    """Sample a model of the sprites and compare with real pictures and with what was asked for.

    Args:
        denoiser: a model of the ten sprite classes, of the sprites' captions, or of sprites unasked.
        samples: pictures for FID; as many real ones are drawn twice.
        accuracy_samples: the first so many also count for class accuracy or caption agreement.
        settings: of the sampler; None takes the model's own.
        report: hears about every sampling step.

    Raises:
        SettingsError: the model is none of the sprites, or fewer samples than accuracy samples are asked for.
    """
    if samples < accuracy_samples:
        raise SettingsError(
            f"quality needs samples >= accuracy_samples, got {samples} and {accuracy_samples}"
        )
    settings = settings or denoiser.sampler
    questions = ask(denoiser, samples)
    drawn = sample(
        questions.denoiser,
        labels=questions.labels,
        seeds=range(samples),
        settings=settings,
        batch_size=BATCH,
        report=report,
    )
    side = drawn.images.shape[1]
    seen = encode(load_encoder(), drawn.images)
    real, other = (encode_real(samples, stream, side) for stream in (REAL_STREAM, OTHER_REAL_STREAM))
    agreed = None
    if questions.labels is not None:
        first = slice(accuracy_samples)
        agreed = bootstrap_mean(agreement(drawn.images[first], questions.asked[first]).astype(np.float64))
    prompted = FAMILIES[denoiser.family].prompted
    return Quality(
        class_accuracy=None if prompted else agreed,
        caption_agreement=agreed if prompted else None,
        fid=frechet_distance(real.features, seen.features),
        fid_of_real=frechet_distance(real.features, other.features),
        precision=precision_recall(real.features, seen.features)[0] if agreed is None else None,
        settings=settings,
    )


def ask(denoiser: Denoiser, count: int, stream: int = CAPTION_STREAM) -> Questions:
    """What to ask a model `count` times: classes in turn, captions of scenes of a stream, or nothing.

    Raises:
        SettingsError: the model has other classes than the sprites.
    """
    if FAMILIES[denoiser.family].prompted:
        scenes = (sprites.attributes(stream, index) for index in range(count))
        said = [captions.paraphrase(scene, random.Random(index)) for index, scene in enumerate(scenes)]
        asked: tuple[Asked, ...] = tuple(captions.asked_for(caption) for caption in said)
        return Questions(denoiser=with_prompts(denoiser, said), labels=list(range(count)), asked=asked)
    if denoiser.num_classes is None:
        return Questions(denoiser=denoiser, labels=None, asked=({},) * count)
    if denoiser.num_classes != len(sprites.KINDS):
        raise SettingsError(
            f"quality needs a model of {len(sprites.KINDS)} classes, got {denoiser.num_classes} classes"
        )
    labels = [index % len(sprites.KINDS) for index in range(count)]
    asked = tuple({"kind": (sprites.KINDS[label],)} for label in labels)
    return Questions(denoiser=denoiser, labels=labels, asked=asked)


def agreement(images: NDArray[np.uint8], asked: Sequence[Asked]) -> NDArray[np.bool_]:
    """Whether each picture (N, H, W, 3) shows all that was asked for: (N,)."""
    recognised = recognise(images)
    return np.array(
        [
            all(recognised[attribute][index] in values for attribute, values in named.items())
            for index, named in enumerate(asked)
        ]
    )


def recognise(images: NDArray[np.uint8]) -> dict[str, list[str]]:
    """Name kind, colour, size and background of pictures (N, H, W, 3), as `sprites-encoder` sees them."""
    encoder = load_encoder()
    names: dict[str, list[str]] = {attribute: [] for attribute in HEADS}
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
            for attribute, scores in encoder(pixels / 127.5 - 1.0).attributes.items():
                names[attribute] += [HEADS[attribute][best] for best in scores.argmax(1).tolist()]
    return names


def encode_real(count: int, stream: int = REAL_STREAM, side: int = sprites.IMAGE_SIZE) -> EncodedSet:
    """Encode `count` real pictures of a stream, seen as a model sees them whose pictures have this side.

    Raises:
        SettingsError: the side is neither the sprites' nor half of it.
    """
    images, _ = sprites.batch(stream, range(count))
    if side not in (sprites.IMAGE_SIZE, sprites.IMAGE_SIZE // 2):
        raise SettingsError(f"pictures must be 64 or 32 pixels wide, got {side}")
    seen = images if side == sprites.IMAGE_SIZE else sprites.halved(images)
    return encode(load_encoder(), seen)
