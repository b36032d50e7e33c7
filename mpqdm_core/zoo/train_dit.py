"""Train `sprites-dit`, a diffusion transformer with classes on the latents of the shipped autoencoder.

    python -m mpqdm_core.zoo.train_dit --run runs/dit            # goes on after a kill
    python -m mpqdm_core.zoo.train_dit --minutes 0 --out         # writes assets/models/sprites-dit

A `DiTPipeline` with patches of 2x2 as DiT-XL/2 has them: 16 tokens a picture, which two cores can train. Its
blocks start as identities (adaLN-Zero, Peebles and Xie 2023). diffusers writes class 1000 into the pipeline
as the one that stands for none, so each block's table has 1001 rows of which eleven are used; the others stay
zero.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.dit_family import NULL_CLASS
from mpqdm_core.sampling import to_uint8
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
from mpqdm_core.zoo.model_folder import MODELS, load_autoencoder, write_model
from mpqdm_core.zoo.train_autoencoder import LATENT_CHANNELS, TRAIN_STREAM
from mpqdm_core.zoo.training import RunFolder

NAME = "sprites-dit"
SAMPLER = SamplerSettings(num_inference_steps=20, guidance_scale=1.5)
LATENT_SIDE = 8
SHEET_ROWS = 4
LABEL_DEVIATION = 0.2  # of a class's first embedding: as loud as that of the timestep


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTSettings(TrainingSettings):
    """Everything that decides the trained transformer."""

    steps: int = 15_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    average_decay: float = 0.999
    layers: int = 6
    heads: int = 6
    head_channels: int = 32
    patch_size: int = 2


def build_transformer(settings: DiTSettings) -> DiTTransformer2DModel:
    """Make the untrained transformer: every block an identity, no noise predicted."""
    network = DiTTransformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=settings.patch_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=settings.layers,
        num_attention_heads=settings.heads,
        attention_head_dim=settings.head_channels,
        num_embeds_ada_norm=NULL_CLASS,
    )
    used = [*range(len(sprites.KINDS)), NULL_CLASS]
    for block in network.transformer_blocks:
        _zero(block.norm1.linear)
        table = block.norm1.emb.class_embedder.embedding_table.weight
        with torch.no_grad():
            rows = LABEL_DEVIATION * torch.randn(len(used), table.shape[1])
            table.zero_()
            table[used] = rows
    _zero(network.proj_out_1)
    _zero(network.proj_out_2)
    return network.eval()  # in training mode each block would drop labels by itself


def trainee(settings: DiTSettings, vae: AutoencoderKL, latents: LatentSet) -> Trainee:
    """The transformer with its loss and its sheet."""
    torch.manual_seed(settings.seed)
    network = build_transformer(settings)
    scheduler = latent_scheduler()
    scale = float(vae.config.scaling_factor)

    def loss(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents.labels), (count,), generator=generator)
        clean = (latents.draw(chosen, generator) * scale).to(device_of(network))
        labels = with_nulls(latents.labels[chosen], NULL_CLASS, settings.condition_dropout, generator)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            classes = labels.to(clean.device)
            noise: Tensor = network(noisy, timestep=timesteps, class_labels=classes).sample
            return noise

        return noise_loss(predict, clean, scheduler.alphas_cumprod, settings.snr_limit, generator)

    def draw(network: nn.Module) -> NDArray[np.uint8]:
        labels = list(range(len(sprites.KINDS))) * SHEET_ROWS
        return draw_classes(assemble(network, vae), labels)

    return Trainee(network=network, loss=loss, draw=draw)


def assemble(network: Any, vae: AutoencoderKL) -> DiTPipeline:
    """Put a transformer and the autoencoder into a pipeline that knows the names of the classes."""
    names = {str(number): name for number, name in enumerate(sprites.KINDS)}
    pipeline = DiTPipeline(network, vae, latent_scheduler(), id2label=names)
    pipeline.register_to_config(id2label=names)  # its constructor forgets them
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_classes(pipeline: DiTPipeline, labels: Sequence[int]) -> NDArray[np.uint8]:
    """Draw one picture per label: (N, 64, 64, 3)."""
    return to_uint8(
        pipeline(
            list(labels),
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(labels))],
            num_inference_steps=SAMPLER.num_inference_steps,
            guidance_scale=SAMPLER.guidance_scale,
            output_type="np",
        ).images
    )


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def main() -> None:
    """Read the command line, train, and write the model if asked."""
    asked = options(__doc__, run="runs/dit", steps=DiTSettings().steps, model=MODELS / NAME).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, run, vae = DiTSettings(steps=asked.steps), RunFolder(asked.run), load_autoencoder()
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
        pipeline = assemble(network, vae)
        write_model(pipeline, asked.out, run=run, settings=settings, sampler=SAMPLER, half=("transformer",))


if __name__ == "__main__":
    main()
