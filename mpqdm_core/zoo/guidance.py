"""Try guidance scales on a class-conditional bundled model, away from every picture its figures are taken on.

    python -m mpqdm_core.zoo.guidance [--samples 500] [--sheets runs/guidance]

For each scale: class accuracy and FID to held-out real pictures on the features of `sprites-encoder`, and a
sheet to look at. The scale a model is sampled with stands in its `model_index.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.distribution import frechet_distance
from mpqdm_core.encoding import encode
from mpqdm_core.loading import load_denoiser
from mpqdm_core.sampling import sample
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import encode_real
from mpqdm_core.zoo.training import save_grid

SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
FIRST_SEED = 2_000_000  # quality is measured on seeds from 0, calibration and headline use others
STREAM = 7  # of real pictures; quality is measured on 5 and 6
SHEET = 60  # pictures


def main() -> None:
    """Print one line of JSON a scale."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites-ldm")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sheets", type=Path, default=Path("runs/guidance"))
    asked = parser.parse_args()
    denoiser, encoder = load_denoiser(asked.model), load_encoder()
    real = encode_real(4 * asked.samples, STREAM)
    labels = np.arange(asked.samples) % (denoiser.num_classes or 1)
    seeds = range(FIRST_SEED, FIRST_SEED + asked.samples)
    asked.sheets.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        settings = SamplerSettings(guidance_scale=scale)
        drawn = sample(denoiser, labels=labels.tolist(), seeds=seeds, settings=settings, batch_size=100)
        seen = encode(encoder, drawn.images)
        accuracy = float((seen.probabilities.argmax(axis=1) == labels).mean())
        distance = frechet_distance(real.features, seen.features, resamples=2).value
        print(json.dumps({"scale": scale, "accuracy": accuracy, "fid": distance}), flush=True)
        save_grid(drawn.images[:SHEET], asked.sheets / f"{scale:g}.png", columns=10)


if __name__ == "__main__":
    main()
