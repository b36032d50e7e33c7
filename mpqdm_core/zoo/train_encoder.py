"""Train `sprites-encoder`, the judge of the bundled models.

    python -m mpqdm_core.zoo.train_encoder --run runs/encoder

Half of the pictures are blurred and all get a little noise, so that the judge looks at shapes, not at the
exact anti-aliasing of the renderer, which no decoder reproduces.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.encoder import ENCODER_FOLDER, HEADS, SpritesEncoder
from mpqdm_core.zoo.training import Average, RunFolder, Schedule, settings_text, to_tensor

TRAIN_STREAM = 3  # seed of the training pictures, disjoint from the autoencoder's
TEST_STREAM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """Everything that decides the trained encoder."""

    seed: int = 0
    steps: int = 1800
    batch_size: int = 64
    learning_rate: float = 2e-3
    noise: float = 0.15  # largest standard deviation of added noise, pictures within [-1, 1]
    spatial_weight: float = 0.3  # of the auxiliary head that gives the spatial features a meaning


def train(settings: EncoderSettings, run: RunFolder, minutes: float) -> SpritesEncoder:
    """Train to the last step, or until the time is up; return the averaged weights."""
    torch.manual_seed(settings.seed)
    model = SpritesEncoder()
    average = Average(model, 0.995)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=1e-3, fused=True
    )
    schedule = Schedule(steps=settings.steps, peak=settings.learning_rate)
    parts = {"model": model, "average": average, "optimizer": optimizer}
    first = run.restore(parts)
    (run.folder / "settings.json").write_text(settings_text(settings))
    deadline = time.monotonic() + 60 * minutes
    for step in range(first, settings.steps):
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        pixels, targets = _labelled(TRAIN_STREAM, step * settings.batch_size, settings.batch_size)
        loss = _loss(model, degrade(pixels, settings.noise, generator), targets, settings.spatial_weight)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average.update(model, step)
        if step % 100 == 99:
            run.log(step=step + 1, loss=loss.item(), seconds=run.seconds)
        stop = time.monotonic() > deadline
        run.save(step + 1, parts, force=stop or step + 1 == settings.steps)
        if stop:
            break
    average.copy_to(model)
    model.eval()
    return model


def degrade(pixels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Blur half of the pictures (3x3 box) and add noise of random strength to each."""
    blurred = nn.functional.avg_pool2d(nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    choose = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    strength = noise * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return torch.where(choose < 0.5, blurred, pixels) + strength * torch.randn(
        pixels.shape, generator=generator
    )


def _labelled(stream: int, start: int, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    scenes = [sprites.attributes(stream, index) for index in range(start, start + count)]
    images, _ = sprites.batch(stream, range(start, start + count))
    targets = {
        name: torch.tensor([choices.index(getattr(scene, name)) for scene in scenes])
        for name, choices in HEADS.items()
    }
    return to_tensor(images), targets


def _loss(model: SpritesEncoder, pixels: Tensor, targets: dict[str, Tensor], spatial_weight: float) -> Tensor:
    seen = model(pixels)
    losses = [nn.functional.cross_entropy(seen.attributes[name], target) for name, target in targets.items()]
    auxiliary = model.from_spatial(seen.spatial.flatten(1))
    return torch.stack(losses).sum() + spatial_weight * nn.functional.cross_entropy(
        auxiliary, targets["kind"]
    )


@torch.no_grad()
def test_accuracy(model: SpritesEncoder, count: int = 2000) -> dict[str, float]:
    """Share of held-out clean pictures whose attribute is recognised, per attribute."""
    pixels, targets = _labelled(TEST_STREAM, 0, count)
    seen = model(pixels).attributes
    return {name: float((seen[name].argmax(1) == target).float().mean()) for name, target in targets.items()}


def main() -> None:
    """Read the command line, train, and write the weights with their accuracy beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/encoder"))
    parser.add_argument("--out", type=Path, default=ENCODER_FOLDER)
    parser.add_argument("--steps", type=int, default=EncoderSettings().steps)
    parser.add_argument("--minutes", type=float, default=240.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = RunFolder(arguments.run)
    settings = EncoderSettings(steps=arguments.steps)
    model = train(settings, run, arguments.minutes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, arguments.out / "model.safetensors", metadata={"format": "pt"})
    accuracy = test_accuracy(model)
    card = {
        "accuracy": accuracy,
        "steps": settings.steps,
        "seed": settings.seed,
        "seconds": round(run.seconds),
    }
    (arguments.out / "training.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card))


if __name__ == "__main__":
    main()
