"""Train the autoencoder of `sprites-ldm`: 64x64 pictures to 8x8 latents with 8 channels, and back.

    python -m mpqdm_core.zoo.train_autoencoder --run runs/autoencoder

Resumes by itself after a kill. The loss is the absolute error of pixels and of their differences (edges are
what a viewer looks at) plus a light KL term; no discriminator, because the pictures are flat-coloured and the
absolute error alone keeps them sharp.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mpqdm_core.gradient_workers import GradientWorkers
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.identity_start import start_as_identity_
from mpqdm_core.zoo.training import (
    RunFolder,
    Schedule,
    save_grid,
    settings_text,
    to_images,
    to_tensor,
)

TRAIN_STREAM = 1  # seed of the training pictures; 2 is held out, 3 trains the encoder
HELD_OUT_STREAM = 2
LATENT_CHANNELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderSettings:
    """Everything that decides the trained autoencoder."""

    seed: int = 0
    steps: int = 12_500
    batch_size: int = 8
    shares: int = (
        2  # of the batch, one per core; part of the settings because the random numbers depend on it
    )
    encoder_steps: int = (
        10_000  # after these the encoder stands still, so that a denoiser can be trained beside it
    )
    learning_rate: float = 1.5e-3
    edge_weight: float = 0.5
    kl_weight: float = 2e-4  # per latent number, against the mean absolute error per pixel value
    block_out_channels: tuple[int, ...] = (16, 16, 32, 64)


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderKL:
    """Make the untrained autoencoder."""
    levels = len(settings.block_out_channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=sprites.IMAGE_SIZE,
    )
    start_as_identity_(vae)
    return vae


def reconstruction_loss(predicted: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Mean absolute error of (N, 3, H, W) pictures and, weighted, of their differences along both axes."""
    error = predicted - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + edge_weight * edges


def train(settings: AutoencoderSettings, run: RunFolder, minutes: float) -> AutoencoderKL:
    """Train to the last step, or until the time is up; the state is saved either way."""
    torch.manual_seed(settings.seed)
    model = build_autoencoder(settings).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), fused=True
    )
    schedule = Schedule(steps=settings.steps, peak=settings.learning_rate)
    parts = {"model": model, "optimizer": optimizer}
    first = run.restore(parts)
    (run.folder / "settings.json").write_text(settings_text(settings))
    deadline = time.monotonic() + 60 * minutes
    torch.set_num_threads(1)  # the workers are the threads
    workers = GradientWorkers(os.cpu_count() or 1)
    share = settings.batch_size // settings.shares
    milestones = (settings.encoder_steps, settings.steps)

    def loss_of(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + index)
        images, _ = sprites.batch(TRAIN_STREAM, range(index * share, (index + 1) * share))
        pixels = to_tensor(images).to(memory_format=torch.channels_last)
        with torch.set_grad_enabled(index < settings.encoder_steps * settings.shares):
            posterior = model.encode(pixels).latent_dist
            latents = posterior.sample(generator)
        decoded: Tensor = model.decode(latents).sample
        kl: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction_loss(decoded, pixels, settings.edge_weight) + settings.kl_weight * kl

    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        indices = range(step * settings.shares, (step + 1) * settings.shares)
        losses = workers.backward(
            list(model.parameters()), [functools.partial(loss_of, index) for index in indices]
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 199:
            psnr = held_out_psnr(model, run.folder / "held_out.png")
            run.log(step=step + 1, loss=sum(losses) / len(losses), psnr_db=psnr, seconds=run.seconds)
        stop = time.monotonic() > deadline
        run.save(step + 1, parts, force=stop or step + 1 in milestones)
        if stop:
            break
    return model


@torch.no_grad()
def held_out_psnr(model: AutoencoderKL, grid: Path | None, count: int = 64) -> float:
    """Mean PSNR, in dB, of held-out pictures decoded from their posterior means; optionally a grid."""
    images, _ = sprites.batch(HELD_OUT_STREAM, range(count))
    pixels = to_tensor(images).to(memory_format=torch.channels_last)
    decoded = model.decode(model.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    if grid is not None:
        save_grid(to_images(torch.cat([pixels[:16], decoded[:16]])), grid, columns=8)
    mse = (decoded - pixels).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4.0 / mse)).mean())


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/autoencoder"))
    parser.add_argument("--steps", type=int, default=AutoencoderSettings().steps)
    parser.add_argument("--minutes", type=float, default=240.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(AutoencoderSettings(steps=arguments.steps), RunFolder(arguments.run), arguments.minutes)


if __name__ == "__main__":
    main()
