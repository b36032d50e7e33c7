"""What the trainings of the denoisers share: settings, the loss of noise prediction, the loop, the options.

A training command brings a `Trainee`: everything that learns, the loss of a share of a batch, and how a sheet
of pictures is drawn. Random numbers come from a generator made of the seed and the number of the share, so
that a run that was killed and resumed sees what an undisturbed one sees.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.gradient_workers import GradientWorkers
from mpqdm_core.zoo.training import Average, RunFolder, Schedule, save_grid, settings_text

SHEET_COLUMNS = 10
LOG_EVERY, SHEET_EVERY = 100, 500  # steps
DEVICE_FILE = "device.txt"  # of a run folder
SEED_STRIDE = 1_000_003  # between the generators of two seeds, above any number of shares


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What decides the training of any denoiser; each command adds the shape of its network."""

    seed: int = 0
    steps: int = 7_000
    batch_size: int = 128
    shares: int = 2  # of the batch, one per core; a setting because the random numbers depend on it
    learning_rate: float = 1.2e-3
    warmup: int = 300
    weight_decay: float = 1e-3
    pictures: int = 60_000
    condition_dropout: float = 0.1  # share of training samples that learn without their class or caption
    snr_limit: float = 5.0
    average_decay: float = 0.9985


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """What one training command adds to the loop."""

    network: nn.Module  # everything that learns
    loss: Callable[[int, torch.Generator], Tensor]  # takes samples of a share and their random numbers
    draw: Callable[[nn.Module], NDArray[np.uint8]]  # takes the averaged network, returns (N, H, W, 3)


def latent_scheduler() -> DDIMScheduler:
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


def noise_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    alphas_cumprod: Tensor,
    snr_limit: float,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the predicted noise, weighted by min(SNR, snr_limit) / SNR (Hang et al. 2023).

    Args:
        predict: takes noisy samples (B, C, h, w) and timesteps (B,), returns the noise it sees in them.
        clean: (B, C, h, w), of variance about 1.
        alphas_cumprod: (T,) of the noise schedule.
        snr_limit: above it an easy timestep counts less.
        generator: of noise and timesteps, on the CPU whatever the device of `clean` is.
    """
    count = len(clean)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    # One timestep per equal slice of the schedule: the same distribution as independent draws, less variance.
    slices = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (slices * len(alphas_cumprod)).long()
    alpha = alphas_cumprod[timesteps].view(-1, 1, 1, 1).to(clean.device)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    predicted = predict(noisy, timesteps.to(clean.device))
    snr = (alpha / (1 - alpha)).flatten()
    weight = snr.clamp(max=snr_limit) / snr
    return ((predicted - noise).square().mean(dim=(1, 2, 3)) * weight).mean()


def with_nulls(labels: Tensor, null: int, share: float, generator: torch.Generator) -> Tensor:
    """Replace a random share of labels (B,) by the class that stands for none."""
    return torch.where(torch.rand(len(labels), generator=generator) < share, null, labels)


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes."""
    return next(network.parameters()).device


def train(
    settings: TrainingSettings,
    run: RunFolder,
    trainee: Trainee,
    *,
    minutes: float,
    workers: int,
    device: str = "cpu",
) -> nn.Module:
    """Train to the last step, or until the time is up; the state is saved either way.

    Args:
        settings: of the loop.
        run: goes on from the state that is there.
        trainee: its network is trained in place.
        minutes: no step begins after these; 0 takes the state as it is.
        workers: threads that take shares of a batch; their number changes no result.
        device: where the network computes; the random numbers are the same on every one.

    Returns:
        A copy of the network with the averaged weights, on the CPU.

    Raises:
        LoadError: the saved state is damaged.
    """
    network = trainee.network.to(device)
    average = Average(network, settings.average_decay)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = Schedule(steps=settings.steps, peak=settings.learning_rate, warmup=settings.warmup)
    parts = {"network": network, "average": average, "optimizer": optimizer}
    first = run.restore(parts)
    (run.folder / "settings.json").write_text(settings_text(settings))
    if minutes > 0 and first < settings.steps:
        (run.folder / DEVICE_FILE).write_text(describe_device(network), encoding="utf-8")
    torch.set_num_threads(1)  # the workers are the threads
    pool = GradientWorkers(workers)

    def loss_of(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(settings.seed * SEED_STRIDE + index)
        return trainee.loss(settings.batch_size // settings.shares, generator)

    deadline = time.monotonic() + 60 * minutes
    losses: deque[float] = deque(maxlen=2 * LOG_EVERY * settings.shares)
    done = first
    while done < settings.steps and time.monotonic() < deadline:
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(done)
        indices = range(done * settings.shares, (done + 1) * settings.shares)
        losses += pool.backward(
            list(network.parameters()), [functools.partial(loss_of, index) for index in indices]
        )
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network, done)
        done += 1
        if done % LOG_EVERY == 0:
            run.log(step=done, loss=sum(losses) / len(losses), seconds=run.seconds)
        run.save(done, parts)
        if done % SHEET_EVERY == 0:
            sheet = trainee.draw(averaged(network, average))
            save_grid(sheet, run.folder / f"samples-{done:06d}.png", columns=SHEET_COLUMNS)
    pool.close()
    if done > first:
        run.save(done, parts, force=True)
    return averaged(network, average)


def averaged(network: nn.Module, average: Average) -> nn.Module:
    """A copy of the network with the averaged weights, ready to be sampled."""
    clone = copy.deepcopy(network)
    average.copy_to(clone)
    return clone.cpu().eval().requires_grad_(False)


def describe_device(network: nn.Module) -> str:
    """What a network was trained on, for its card."""
    device = device_of(network)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def options(description: str | None, *, run: str, steps: int, model: Path) -> argparse.ArgumentParser:
    """The command line that all trainings of denoisers share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, default=Path(run), help="state, log and sheets; a run that is there goes on")
    add("--data", type=Path, default=None, help="prepared pictures; default: a folder of the run")
    add("--steps", type=int, default=steps, help="of the whole training, restarts included")
    add("--minutes", type=float, default=240.0, help="stop after these; 0 trains no step")
    add("--workers", type=int, default=os.cpu_count() or 1, help="threads; they change no result")
    add("--device", default="cpu", help="cpu or cuda; random numbers are the same")
    written = f"then write the averaged weights as a diffusers folder; alone: assets/models/{model.name}"
    add("--out", "--export", type=Path, nargs="?", const=model, default=None, help=written)
    return parser
