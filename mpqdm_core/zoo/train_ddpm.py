"""Train `sprites-ddpm`, an unconditional model in pixel space, at half the sprites' resolution.

    python -m mpqdm_core.zoo.train_ddpm --run runs/ddpm          # goes on after a kill
    python -m mpqdm_core.zoo.train_ddpm --minutes 0 --out        # writes assets/models/sprites-ddpm

A stock `DDPMPipeline`: a `UNet2DModel` on pictures of 32x32, each pixel the mean of four, with the linear
schedule of Ho et al. 2020 and attention at 8x8 only, which is what costs time on a CPU.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import to_uint8
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.denoiser_training import Trainee, TrainingSettings, device_of, noise_loss, options, train
from mpqdm_core.zoo.latents import cached_chunks
from mpqdm_core.zoo.model_folder import MODELS, write_model
from mpqdm_core.zoo.train_autoencoder import TRAIN_STREAM
from mpqdm_core.zoo.training import RunFolder

NAME = "sprites-ddpm"
SAMPLER = SamplerSettings(num_inference_steps=20, guidance_scale=1.0)
SIDE = sprites.IMAGE_SIZE // 2
SHEET = 40  # pictures
GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings(TrainingSettings):
    """Everything that decides the trained U-Net."""

    steps: int = 10_000
    batch_size: int = 48
    learning_rate: float = 1e-3
    average_decay: float = 0.999
    block_out_channels: tuple[int, ...] = (32, 48, 96)
    layers_per_block: int = 1
    head_channels: int = 32
    bfloat16: bool = True  # products of the network, by autocast; weights and loss stay float32


def build_network(settings: PixelSettings) -> UNet2DModel:
    """Make the untrained U-Net, attention at its coarsest level; it first predicts no noise."""
    plain = len(settings.block_out_channels) - 1
    network = UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        down_block_types=(*("DownBlock2D",) * plain, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *("UpBlock2D",) * plain),
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        attention_head_dim=settings.head_channels,
        norm_num_groups=GROUPS,
    )
    nn.init.zeros_(network.conv_out.weight)
    return network


def build_scheduler() -> DDPMScheduler:
    """The linear schedule of Ho et al. 2020, predicted pictures clipped to what pixels can be."""
    return DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, clip_sample=True)


def half_sprites(indices: range) -> dict[str, Tensor]:
    """Training pictures at half their side: "pixels" (N, 3, 32, 32) uint8."""
    images, _ = sprites.batch(TRAIN_STREAM, indices)
    return {"pixels": torch.from_numpy(sprites.halved(images)).permute(0, 3, 1, 2).contiguous()}


def trainee(settings: PixelSettings, pictures: Tensor) -> Trainee:
    """The U-Net with its loss on `pictures` (N, 3, 32, 32) uint8, and its sheet."""
    torch.manual_seed(settings.seed)
    network = build_network(settings)
    scheduler = build_scheduler()

    def loss(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (count,), generator=generator)
        clean = pictures[chosen].float() / 127.5 - 1.0
        clean = clean.to(device_of(network))

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            with torch.autocast(noisy.device.type, torch.bfloat16, enabled=settings.bfloat16):
                noise: Tensor = network(noisy, timesteps).sample
            return noise.float()

        return noise_loss(predict, clean, scheduler.alphas_cumprod, settings.snr_limit, generator)

    return Trainee(network=network, loss=loss, draw=lambda network: draw_pictures(network, SHEET))


def draw_pictures(network: Any, count: int) -> NDArray[np.uint8]:
    """Draw with DDIM steps, as the bundled model is meant to be sampled: (N, 32, 32, 3)."""
    pipeline = DDIMPipeline(network, build_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return to_uint8(
        pipeline(
            batch_size=count,
            generator=[torch.Generator().manual_seed(seed) for seed in range(count)],
            num_inference_steps=SAMPLER.num_inference_steps,
            output_type="np",
        ).images
    )


def main() -> None:
    """Read the command line, train, and write the model if asked."""
    asked = options(__doc__, run="runs/ddpm", steps=PixelSettings().steps, model=MODELS / NAME).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, run = PixelSettings(steps=asked.steps), RunFolder(asked.run)
    folder = asked.data or asked.run / "pixels"
    pictures = cached_chunks(folder, TRAIN_STREAM, settings.pictures, half_sprites)["pixels"]
    network = train(
        settings,
        run,
        trainee(settings, pictures),
        minutes=asked.minutes,
        workers=asked.workers,
        device=asked.device,
    )
    if asked.out is not None:
        pipeline = DDPMPipeline(network, build_scheduler())
        write_model(pipeline, asked.out, run=run, settings=settings, sampler=SAMPLER)


if __name__ == "__main__":
    main()
