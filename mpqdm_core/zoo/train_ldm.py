"""Train the denoiser of `sprites-ldm` on latents of the trained autoencoder, with classifier-free guidance.

    python -m mpqdm_core.zoo.train_ldm --run runs/ldm --autoencoder runs/autoencoder

Noise prediction on the LDM-4 ImageNet schedule, losses weighted by min(SNR, 5) / SNR (Hang et al. 2023),
classes dropped at random so that one network gives both halves of the guidance. Resumes by itself after a
kill; sample grids and a log go into the run folder. `--export` writes the diffusers
folder from the averaged weights.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.pipelines import ClassConditionalLDMPipeline
from mpqdm_core.sampling import to_uint8
from mpqdm_core.saved_configs import forget_origins
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.denoiser_training import (
    Trainee,
    TrainingSettings,
    device_of,
    latent_scheduler,
    noise_loss,
    options,
    train,
    with_nulls,
)
from mpqdm_core.zoo.latents import LatentSet, encode_sprites
from mpqdm_core.zoo.model_folder import MODELS, device_of_run, last_line
from mpqdm_core.zoo.train_autoencoder import (
    LATENT_CHANNELS,
    TRAIN_STREAM,
    AutoencoderSettings,
    build_autoencoder,
)
from mpqdm_core.zoo.training import RunFolder

NAME = "sprites-ldm"
GUIDANCE_SCALE = 1.5  # the least FID, with clean classes; 2.0 raises accuracy a little and FID a lot
SHEET_ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserSettings(TrainingSettings):
    """Everything that decides the trained denoiser."""

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


def trainee(settings: DenoiserSettings, vae: AutoencoderKL, latents: LatentSet) -> Trainee:
    """The U-Net with its loss and its sheet."""
    torch.manual_seed(settings.seed)
    network = build_denoiser(settings).to(memory_format=torch.channels_last)
    scheduler, null = latent_scheduler(), len(sprites.KINDS)

    def loss(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents.labels), (count,), generator=generator)
        clean = latents.draw(chosen, generator) * latents.scaling_factor
        clean = clean.to(device_of(network), memory_format=torch.channels_last)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            labels = with_nulls(latents.labels[chosen], null, settings.condition_dropout, generator)
            noise: Tensor = network(noisy, timesteps, class_labels=labels.to(clean.device)).sample
            return noise

        return noise_loss(predict, clean, scheduler.alphas_cumprod, settings.snr_limit, generator)

    def draw(network: nn.Module) -> NDArray[np.uint8]:
        return sample_grid(assemble(network, vae, latents.scaling_factor))

    return Trainee(network=network, loss=loss, draw=draw)


def assemble(network: Any, vae: AutoencoderKL, scaling_factor: float) -> ClassConditionalLDMPipeline:
    """Put the U-Net, the autoencoder and the scheduler into a pipeline."""
    vae.register_to_config(scaling_factor=scaling_factor)
    pipeline = ClassConditionalLDMPipeline(
        unet=network,
        vae=vae.eval(),
        scheduler=latent_scheduler(),
        class_names=sprites.KINDS,
        guidance_scale=GUIDANCE_SCALE,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_grid(pipeline: ClassConditionalLDMPipeline, per_class: int = SHEET_ROWS) -> NDArray[np.uint8]:
    """Draw a few pictures of each class: (10 * per_class, 64, 64, 3), classes along each row."""
    labels = list(range(len(sprites.KINDS))) * per_class
    return to_uint8(
        pipeline(
            class_labels=labels,
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(labels))],
            num_inference_steps=20,
            guidance_scale=GUIDANCE_SCALE,
            output_type="np",
        ).images
    )


def load_autoencoder(run: Path) -> AutoencoderKL:
    """Read the autoencoder of a run folder."""
    vae = build_autoencoder(AutoencoderSettings())
    RunFolder(run).restore({"model": vae})
    return vae.eval().requires_grad_(False)


def main() -> None:
    """Read the command line, train, and write the model if asked."""
    parser = options(__doc__, run="runs/ldm", steps=DenoiserSettings().steps, model=MODELS / NAME)
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/autoencoder"))
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, run, vae = (
        DenoiserSettings(steps=asked.steps),
        RunFolder(asked.run),
        load_autoencoder(asked.autoencoder),
    )
    latents = encode_sprites(vae, asked.data or asked.run / "latents", TRAIN_STREAM, settings.pictures)
    network = train(
        settings,
        run,
        trainee(settings, vae, latents),
        minutes=asked.minutes,
        workers=asked.workers,
        device=asked.device,
    )
    if asked.out is not None:
        assemble(network, vae, latents.scaling_factor).save_pretrained(asked.out, safe_serialization=True)
        forget_origins(asked.out)
        _write_training(asked.out, RunFolder(asked.autoencoder), run, settings)


def _write_training(folder: Path, autoencoder: RunFolder, run: RunFolder, settings: DenoiserSettings) -> None:
    """Keep what decided the weights beside them."""
    decided = json.loads((autoencoder.folder / "settings.json").read_text())
    document = {
        "autoencoder": {**decided, "log": last_line(autoencoder)},
        "denoiser": {**asdict(settings), "log": last_line(run)},
        "device": device_of_run(run),
    }
    (folder / "training.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
