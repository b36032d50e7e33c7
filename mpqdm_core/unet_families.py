"""The families of diffusers' `UNet2DModel`: in pixels, in latents, in latents with classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    LDMPipeline,
    UNet2DModel,
    VQModel,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import PIPELINE_NOTES, SamplerSettings
from mpqdm_core.family import Family, Generators
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

LATENT_SCHEDULERS = ("ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-solver++")
SCHEDULERS = (DDIMScheduler, DDPMScheduler)  # both describe the same noise; DDIM steps are made from either


def example_unet(network: nn.Module) -> dict[str, Tensor]:
    """Zeros, at the first timestep and of the first class."""
    config: Any = network.config
    sample = zeros_like_input(network)
    zero = torch.zeros(1, dtype=torch.long, device=sample.device)
    labels = {} if config.num_class_embeds is None else {"class_labels": zero}
    return {"sample": sample, "timestep": zero, **labels}


def zeros_like_input(network: nn.Module) -> Tensor:
    """One sample of zeros in the shape, type and place that a network takes."""
    config: Any = network.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    parameter = next(network.parameters())
    return torch.zeros(1, config.in_channels, height, width, device=parameter.device, dtype=parameter.dtype)


def no_classes(pipeline: Any) -> None:
    """There are none."""
    del pipeline


def pipeline_classes(pipeline: Any) -> tuple[int, tuple[str, ...]]:
    """Classes of a `ClassConditionalLDMPipeline`."""
    count = int(pipeline.num_classes)
    names = getattr(pipeline.config, "class_names", None) or [f"class {k}" for k in range(count)]
    return count, tuple(names)


def draw_unconditional(
    pipeline: Any, labels: Sequence[int] | None, generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw with an unconditional pipeline."""
    del labels  # there are none; sampling.sample has refused any
    pictures: NDArray[np.float32] = pipeline(
        batch_size=len(generators),
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        eta=settings.eta,
        output_type="np",
    ).images
    return pictures


def draw_class_conditional(
    pipeline: Any, labels: Sequence[int] | None, generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw with the class-conditional pipeline."""
    pictures: NDArray[np.float32] = pipeline(
        labels,
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        eta=settings.eta,
        output_type="np",
    ).images
    return pictures


def decode_pixels(pipeline: Any, latents: Tensor) -> Tensor:
    """Turn pixels within [-1, 1] into pictures."""
    del pipeline  # a pixel-space model's latents are its pictures
    return (latents / 2 + 0.5).clamp(0, 1)


def decode_ldm(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode with the pipeline's autoencoder, whose quantizer the pipeline skips too."""
    pictures: Tensor = pipeline.vqvae.decode(latents / pipeline.vqvae.config.scaling_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def decode_class_conditional(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode as the pipeline does."""
    pictures: Tensor = pipeline.decode_latents(latents)
    return pictures


UNGUIDED = SamplerSettings(guidance_scale=1.0)

DDPM = Family(
    name="ddpm",
    title="pixel-space diffusion without classes",
    folder_classes=("DDPMPipeline", "DDIMPipeline"),
    pipeline_class=DDIMPipeline,
    parts={"unet": (UNet2DModel,), "scheduler": SCHEDULERS},
    draw=draw_unconditional,
    decode=decode_pixels,
    example=example_unet,
    classes=no_classes,
    conditional=False,
    sampler=UNGUIDED,
)
"""A DDPM folder is sampled with DDIM steps, as diffusers' DDIMPipeline allows: paired comparison needs a
sampler that adds no noise of its own, and eta = 1 brings the noise back."""

LDM = Family(
    name="ldm",
    title="latent diffusion without classes",
    folder_classes=("LDMPipeline", "LatentDiffusionUncondPipeline"),
    pipeline_class=LDMPipeline,
    parts={"unet": (UNet2DModel,), "vqvae": (VQModel, AutoencoderKL), "scheduler": SCHEDULERS},
    draw=draw_unconditional,
    decode=decode_ldm,
    example=example_unet,
    classes=no_classes,
    conditional=False,
    sampler=UNGUIDED,
    alternatives={"vqvae": "vae"},
    schedulers=LATENT_SCHEDULERS,
)

CLASS_CONDITIONAL_LDM = Family(
    name="class-conditional-ldm",
    title="latent diffusion with classes",
    folder_classes=("ClassConditionalLDMPipeline",),
    pipeline_class=ClassConditionalLDMPipeline,
    parts={"unet": (UNet2DModel,), "vae": (AutoencoderKL,), "scheduler": SCHEDULERS},
    draw=draw_class_conditional,
    decode=decode_class_conditional,
    example=example_unet,
    classes=pipeline_classes,
    conditional=True,
    sampler=SamplerSettings(),
    notes=PIPELINE_NOTES,
    schedulers=LATENT_SCHEDULERS,
)
