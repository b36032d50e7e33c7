"""Train the denoiser of `sprites-ldm` on latents of the trained autoencoder, with classifier-free guidance.

    python -m mpqdm_core.zoo.train_ldm --run runs/ldm --autoencoder runs/autoencoder

Noise prediction on the LDM-4 ImageNet schedule, losses weighted by min(SNR, 5) / SNR (Hang et al. 2023),
classes dropped at random so that one network gives both halves of the guidance. Resumes by itself after a
kill; sample grids and a log go into the run folder. `--export` writes the diffusers
folder from the averaged weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from torch import Tensor

from mpqdm_core.gradient_workers import GradientWorkers
from mpqdm_core.pipelines import ClassConditionalLDMPipeline
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.latents import LatentSet, encode_sprites
from mpqdm_core.zoo.train_autoencoder import (
    LATENT_CHANNELS,
    TRAIN_STREAM,
    AutoencoderSettings,
    build_autoencoder,
)
from mpqdm_core.zoo.training import Average, RunFolder, Schedule, save_grid, settings_text

GUIDANCE_SCALE = 1.5  # the least FID, with clean classes; 2.0 raises accuracy a little and FID a lot
MODEL_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "models" / "sprites-ldm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserSettings:
    """Everything that decides the trained denoiser."""

    seed: int = 0
    steps: int = 7_000
    batch_size: int = 128
    shares: int = (
        2  # of the batch, one per core; part of the settings because the random numbers depend on it
    )
    learning_rate: float = 1.2e-3
    pictures: int = 60_000
    class_dropout: float = 0.1  # share of training samples whose class is replaced by the null class
    snr_limit: float = 5.0
    average_decay: float = 0.9985
    block_out_channels: tuple[int, ...] = (64, 128)
    layers_per_block: int = 1


def build_denoiser(settings: DenoiserSettings) -> UNet2DModel:
    """Make the untrained U-Net; its last convolution starts at zero, so that it first predicts no noise."""
    levels = len(settings.block_out_channels)
    network = UNet2DModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("AttnDownBlock2D",) * levels,
        up_block_types=("AttnUpBlock2D",) * levels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        attention_head_dim=32,
        norm_num_groups=16,
        num_class_embeds=len(sprites.KINDS) + 1,
    )
    torch.nn.init.zeros_(network.conv_out.weight)
    return network


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of LDM-4 ImageNet, and its DDIM steps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="leading",
    )


def diffusion_loss(
    network: UNet2DModel,
    clean: Tensor,
    labels: Tensor,
    alphas_cumprod: Tensor,
    settings: DenoiserSettings,
    generator: torch.Generator,
) -> Tensor:
    """Mean weighted squared error of the predicted noise for scaled latents (B, 4, 8, 8) and labels (B,)."""
    count = len(clean)
    noise = torch.randn(clean.shape, generator=generator)
    # One timestep per equal slice of the schedule: the same distribution as independent draws, less variance.
    slices = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (slices * len(alphas_cumprod)).long()
    alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    dropped = torch.rand(count, generator=generator) < settings.class_dropout
    classes = torch.where(dropped, len(sprites.KINDS), labels)
    predicted: Tensor = network(noisy, timesteps, class_labels=classes).sample
    snr = (alpha / (1 - alpha)).flatten()
    weight = snr.clamp(max=settings.snr_limit) / snr
    return ((predicted - noise).square().mean(dim=(1, 2, 3)) * weight).mean()


def train(
    settings: DenoiserSettings, run: RunFolder, vae: AutoencoderKL, latents: LatentSet, minutes: float
) -> UNet2DModel:
    """Train to the last step, or until the time is up; return the network with the averaged weights."""
    torch.manual_seed(settings.seed)
    network = build_denoiser(settings).to(memory_format=torch.channels_last)
    average = Average(network, settings.average_decay)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    schedule = Schedule(steps=settings.steps, peak=settings.learning_rate, warmup=300)
    parts = {"network": network, "average": average, "optimizer": optimizer}
    first = run.restore(parts)
    (run.folder / "settings.json").write_text(settings_text(settings))
    alphas_cumprod = build_scheduler().alphas_cumprod
    torch.set_num_threads(1)  # the workers are the threads
    workers = GradientWorkers(os.cpu_count() or 1)

    def loss_of(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + index)
        count = settings.batch_size // settings.shares
        chosen = torch.randint(len(latents.labels), (count,), generator=generator)
        clean = (latents.draw(chosen, generator) * latents.scaling_factor).to(
            memory_format=torch.channels_last
        )
        return diffusion_loss(network, clean, latents.labels[chosen], alphas_cumprod, settings, generator)

    deadline, losses = time.monotonic() + 60 * minutes, []
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        indices = range(step * settings.shares, (step + 1) * settings.shares)
        losses += workers.backward(
            list(network.parameters()), [functools.partial(loss_of, index) for index in indices]
        )
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, step)
        if step % 100 == 99:
            run.log(step=step + 1, loss=sum(losses[-400:]) / len(losses[-400:]), seconds=run.seconds)
        if step % 500 == 499:
            pipeline = assemble(settings, average, vae, latents.scaling_factor)
            save_grid(sample_grid(pipeline), run.folder / f"samples-{step + 1:06d}.png", columns=10)
        stop = time.monotonic() > deadline
        run.save(step + 1, parts, force=stop or step + 1 == settings.steps)
        if stop:
            break
    average.copy_to(network)
    return network


def assemble(
    settings: DenoiserSettings, average: Average, vae: AutoencoderKL, scaling_factor: float
) -> ClassConditionalLDMPipeline:
    """Put the averaged weights, the autoencoder and the scheduler into a pipeline."""
    network = build_denoiser(settings)
    average.copy_to(network)
    vae.register_to_config(scaling_factor=scaling_factor)
    return ClassConditionalLDMPipeline(
        unet=network.eval(),
        vae=vae.eval(),
        scheduler=build_scheduler(),
        class_names=sprites.KINDS,
        guidance_scale=GUIDANCE_SCALE,
    )


def sample_grid(
    pipeline: ClassConditionalLDMPipeline, per_class: int = 4, guidance_scale: float = GUIDANCE_SCALE
) -> np.ndarray:
    """Draw a few pictures of each class: (10 * per_class, 64, 64, 3) uint8, classes along each row."""
    labels = list(range(len(sprites.KINDS))) * per_class
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(labels))]
    pipeline.set_progress_bar_config(disable=True)
    images: Tensor = pipeline(
        class_labels=labels,
        generator=generators,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        output_type="pt",
    ).images
    return images.permute(0, 2, 3, 1).mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def load_autoencoder(run: Path) -> AutoencoderKL:
    """Read the autoencoder of a run folder."""
    vae = build_autoencoder(AutoencoderSettings())
    RunFolder(run).restore({"model": vae})
    return vae.eval().requires_grad_(False)


def main() -> None:
    """Read the command line and train, or export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/ldm"))
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/autoencoder"))
    parser.add_argument("--steps", type=int, default=DenoiserSettings().steps)
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--export", type=Path, default=None, help="write the diffusers folder here and stop")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = DenoiserSettings(steps=arguments.steps)
    vae = load_autoencoder(arguments.autoencoder)
    latents = encode_sprites(
        vae,
        arguments.run / "latents",
        TRAIN_STREAM,
        settings.pictures,
        lambda done, total, text: print(text, done, total),
    )
    run = RunFolder(arguments.run)
    if arguments.export is None:
        train(settings, run, vae, latents, arguments.minutes)
        return
    average = Average(build_denoiser(settings), settings.average_decay)
    run.restore({"average": average})
    pipeline = assemble(settings, average, vae, latents.scaling_factor)
    pipeline.save_pretrained(arguments.export, safe_serialization=True)
    _write_training(arguments, run, settings)


def _write_training(arguments: argparse.Namespace, run: RunFolder, settings: DenoiserSettings) -> None:
    """Keep what decided the weights beside them."""
    vae_run = RunFolder(arguments.autoencoder)
    document = {
        "autoencoder": {
            **json.loads((vae_run.folder / "settings.json").read_text()),
            "log": _last_line(vae_run),
        },
        "denoiser": {**asdict(settings), "log": _last_line(run)},
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
    }
    (arguments.export / "training.json").write_text(json.dumps(document, indent=2) + "\n")


def _last_line(run: RunFolder) -> dict[str, float]:
    line: dict[str, float] = json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])
    return line


if __name__ == "__main__":
    main()
