"""Train `sprites-t2i`, a text-to-image model in the shape of Stable Diffusion on the sprites' captions.

    python -m mpqdm_core.zoo.train_t2i --run runs/t2i            # goes on after a kill
    python -m mpqdm_core.zoo.train_t2i --minutes 0 --out         # writes assets/models/sprites-t2i

A stock `StableDiffusionPipeline`: a CLIP text encoder of two layers, learned together with the U-Net from the
loss of noise prediction alone, as in latent diffusion's own text-to-image model (Rombach et al. 2022). Each
time a picture is seen it gets another true caption; one in ten gets none, for classifier-free guidance. The
U-Net starts from that of `sprites-ldm`, which draws on the same latents with the same noise schedule.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import to_uint8
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.caption_encoder import build_text_encoder, build_tokenizer
from mpqdm_core.zoo.captions import paraphrase, vocabulary
from mpqdm_core.zoo.denoiser_training import (
    Trainee,
    TrainingSettings,
    device_of,
    latent_scheduler,
    noise_loss,
    options,
    train,
)
from mpqdm_core.zoo.latents import LatentSet, encode_sprites
from mpqdm_core.zoo.ldm_start import start_from_ldm_
from mpqdm_core.zoo.model_folder import MODELS, load_autoencoder, write_model
from mpqdm_core.zoo.train_autoencoder import LATENT_CHANNELS, TRAIN_STREAM
from mpqdm_core.zoo.training import RunFolder

NAME = "sprites-t2i"
SAMPLER = SamplerSettings(
    num_inference_steps=20, guidance_scale=2.0
)  # the least FID is at 1.75, agreement still rises a little
PROMPT_STREAM = 8  # of scenes whose captions the model brings; no training reads it
FIRST_PROMPT = "a small red star on a blue background"
PROMPTS = 20
LATENT_SIDE = 8
SHEET = 40  # pictures
GROUPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToImageSettings(TrainingSettings):
    """Everything that decides the trained U-Net and text encoder."""

    steps: int = 3_500
    batch_size: int = 64
    learning_rate: float = 1e-3
    average_decay: float = 0.999
    block_out_channels: tuple[int, ...] = (64, 128)
    layers_per_block: int = 1
    head_channels: int = 32
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    start: str = "sprites-ldm"  # bundled model whose U-Net this one starts from; empty for none


def prompts(count: int = PROMPTS) -> tuple[str, ...]:
    """What the model brings to be asked: one everybody knows, and full captions of scenes never seen."""
    scenes = (sprites.attributes(PROMPT_STREAM, index) for index in range(count - 1))
    return (FIRST_PROMPT, *(scene.caption for scene in scenes))


def build_networks(settings: TextToImageSettings) -> nn.ModuleDict:
    """Make "unet" and "text_encoder" as they are before training; without a start no noise is predicted."""
    levels = len(settings.block_out_channels)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        # diffusers calls the number of heads so in this class
        attention_head_dim=tuple(width // settings.head_channels for width in settings.block_out_channels),
        cross_attention_dim=settings.text_width,
        norm_num_groups=GROUPS,
    )
    nn.init.zeros_(unet.conv_out.weight)
    if settings.start:
        donor = UNet2DModel.from_pretrained(
            MODELS / settings.start / "unet", local_files_only=True, use_safetensors=True
        )
        start_from_ldm_(unet, donor, null_class=len(sprites.KINDS))
    tokenizer = build_tokenizer(vocabulary())
    text = build_text_encoder(tokenizer, settings.text_width, settings.text_layers, settings.text_heads)
    return nn.ModuleDict({"unet": unet.to(memory_format=torch.channels_last), "text_encoder": text})


class CaptionReader:
    """Turns captions into token ids; one caller at a time, as the tokenizer holds its settings."""

    def __init__(self) -> None:
        """Build the tokenizer."""
        self.tokenizer = build_tokenizer(vocabulary())
        self._lock = threading.Lock()

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Token ids (N, tokens) int64, all of one length."""
        with self._lock:
            read = self.tokenizer(
                list(captions),
                padding="max_length",
                truncation=True,
                max_length=self.tokenizer.model_max_length,
                return_tensors="pt",
            )
        ids: Tensor = read.input_ids
        return ids


def trainee(settings: TextToImageSettings, vae: AutoencoderKL, latents: LatentSet) -> Trainee:
    """U-Net and text encoder with their loss and their sheet."""
    torch.manual_seed(settings.seed)
    networks = build_networks(settings)
    reader, scheduler = CaptionReader(), latent_scheduler()
    scale = float(vae.config.scaling_factor)

    def loss(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents.labels), (count,), generator=generator)
        clean = latents.draw(chosen, generator) * scale
        clean = clean.to(device_of(networks), memory_format=torch.channels_last)
        ids = reader(captions_of(chosen.tolist(), settings.condition_dropout, generator))
        text = networks["text_encoder"](ids.to(clean.device))[0]

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            noise: Tensor = networks["unet"](noisy, timesteps, encoder_hidden_states=text).sample
            return noise

        return noise_loss(predict, clean, scheduler.alphas_cumprod, settings.snr_limit, generator)

    def draw(networks: nn.Module) -> NDArray[np.uint8]:
        asked = [*prompts(), *(f"a {colour} cat" for colour in sprites.COLOURS), *sprites.KINDS, "", ""]
        return draw_prompts(assemble(networks, vae), asked[:SHEET])

    return Trainee(network=networks, loss=loss, draw=draw)


def captions_of(indices: Sequence[int], dropout: float, generator: torch.Generator) -> list[str]:
    """A true caption of each training picture; a random share is left empty."""
    chance = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    return [
        "" if chance.random() < dropout else paraphrase(sprites.attributes(TRAIN_STREAM, index), chance)
        for index in indices
    ]


def assemble(networks: Any, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """Put the trained parts, tokenizer and autoencoder into a pipeline; nothing checks its pictures."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=networks["text_encoder"],
        tokenizer=build_tokenizer(vocabulary()),
        unet=networks["unet"],
        scheduler=latent_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_prompts(pipeline: StableDiffusionPipeline, asked: Sequence[str]) -> NDArray[np.uint8]:
    """Draw one picture per prompt: (N, 64, 64, 3)."""
    return to_uint8(
        pipeline(
            prompt=list(asked),
            generator=[torch.Generator().manual_seed(seed) for seed in range(len(asked))],
            num_inference_steps=SAMPLER.num_inference_steps,
            guidance_scale=SAMPLER.guidance_scale,
            output_type="np",
        ).images
    )


def main() -> None:
    """Read the command line, train, and write the model if asked."""
    asked = options(
        __doc__, run="runs/t2i", steps=TextToImageSettings().steps, model=MODELS / NAME
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings, run, vae = TextToImageSettings(steps=asked.steps), RunFolder(asked.run), load_autoencoder()
    latents = encode_sprites(vae, asked.data or asked.run / "latents", TRAIN_STREAM, settings.pictures)
    networks = train(
        settings,
        run,
        trainee(settings, vae, latents),
        minutes=asked.minutes,
        workers=asked.workers,
        device=asked.device,
    )
    if asked.out is not None:
        pipeline = assemble(networks, vae)
        half = ("unet",)  # transformers would compute a text encoder in the type it is stored in
        write_model(
            pipeline, asked.out, run=run, settings=settings, sampler=SAMPLER, half=half, prompts=prompts()
        )


if __name__ == "__main__":
    main()
