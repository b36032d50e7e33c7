"""How good a bundled model is: do its pictures show what was asked for, and do they look like the data?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.distribution import DistributionalResult, frechet_distance
from mpqdm_core.encoding import EncodedSet, encode
from mpqdm_core.errors import SettingsError
from mpqdm_core.intervals import Estimate, bootstrap_mean
from mpqdm_core.progress import Report, silent
from mpqdm_core.sampling import sample
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.encoder import load_encoder

REAL_STREAM = 5  # held-out pictures: no training command reads this stream
OTHER_REAL_STREAM = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of a class-conditional bundled model, on the features of `sprites-encoder`."""

    class_accuracy: Estimate  # share of samples recognised as the class that was asked for
    fid: DistributionalResult  # samples against held-out real pictures
    fid_of_real: DistributionalResult  # two disjoint sets of real pictures of the same size: the floor
    settings: SamplerSettings


def measure_quality(
    denoiser: Denoiser,
    *,
    samples: int = 5000,
    accuracy_samples: int = 1000,
    settings: SamplerSettings | None = None,
    report: Report = silent,
) -> Quality:
    """Sample a class-conditional sprites model and compare with real pictures.

    Args:
        denoiser: a model of the ten sprite classes.
        samples: pictures for FID; as many real ones are drawn twice.
        accuracy_samples: the first so many also count for class accuracy.
        settings: of the sampler; None takes the model's own.
        report: hears about every sampling step.

    Raises:
        SettingsError: the model has no classes, or fewer samples than accuracy samples are asked for.
    """
    if denoiser.num_classes != len(sprites.KINDS) or samples < accuracy_samples:
        raise SettingsError(
            f"quality needs a model of {len(sprites.KINDS)} classes and samples >= accuracy_samples, "
            f"got {denoiser.num_classes} classes, {samples} and {accuracy_samples}"
        )
    settings = settings or denoiser.sampler
    encoder = load_encoder()
    labels = [index % len(sprites.KINDS) for index in range(samples)]
    drawn = sample(
        denoiser, labels=labels, seeds=range(samples), settings=settings, batch_size=100, report=report
    )
    seen = encode(encoder, drawn.images)
    real, other = (encode_real(samples, stream) for stream in (REAL_STREAM, OTHER_REAL_STREAM))
    correct = seen.probabilities.argmax(axis=1)[:accuracy_samples] == np.array(labels[:accuracy_samples])
    return Quality(
        class_accuracy=bootstrap_mean(correct.astype(np.float64)),
        fid=frechet_distance(real.features, seen.features),
        fid_of_real=frechet_distance(real.features, other.features),
        settings=settings,
    )


def encode_real(count: int, stream: int = REAL_STREAM) -> EncodedSet:
    """Encode `count` real pictures of a stream."""
    images, _ = sprites.batch(stream, range(count))
    return encode(load_encoder(), images)
