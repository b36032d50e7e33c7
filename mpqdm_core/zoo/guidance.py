"""Try guidance scales on a conditional bundled model, away from every picture its figures are taken on.

    python -m mpqdm_core.zoo.guidance [--model sprites-dit] [--samples 500] [--sheets runs/guidance]

For each scale: how many samples show what was asked for, FID to held-out real pictures on the features of
`sprites-encoder`, and a sheet to look at. The scale a model is sampled with stands in its `sampler.json` or
`model_index.json`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from mpqdm_core.distribution import frechet_distance
from mpqdm_core.encoding import encode
from mpqdm_core.loading import load_denoiser
from mpqdm_core.sampling import sample
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import agreement, ask, encode_real
from mpqdm_core.zoo.training import save_grid

SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
FIRST_SEED = 2_000_000  # quality is measured on seeds from 0, calibration and headline use others
STREAM = 7  # of real pictures; quality is measured on 5 and 6
CAPTIONS = 10  # stream of captions; quality asks those of 9
SHEET = 60  # pictures


def main() -> None:
    """Print one line of JSON a scale."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites-ldm", help="a bundled name or a folder")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sheets", type=Path, default=Path("runs/guidance"))
    given = parser.parse_args()
    denoiser, encoder = load_denoiser(given.model), load_encoder()
    real = encode_real(4 * given.samples, STREAM)
    questions = ask(denoiser, given.samples, CAPTIONS)
    seeds = range(FIRST_SEED, FIRST_SEED + given.samples)
    given.sheets.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        settings = replace(denoiser.sampler, guidance_scale=scale)
        drawn = sample(
            questions.denoiser, labels=questions.labels, seeds=seeds, settings=settings, batch_size=100
        )
        agreed = float(agreement(drawn.images, questions.asked).mean())
        seen = encode(encoder, drawn.images)
        distance = frechet_distance(real.features, seen.features, resamples=2).value
        print(json.dumps({"scale": scale, "agreement": agreed, "fid": distance}), flush=True)
        save_grid(drawn.images[:SHEET], given.sheets / f"{denoiser.name}-{scale:g}.png", columns=10)


if __name__ == "__main__":
    main()
