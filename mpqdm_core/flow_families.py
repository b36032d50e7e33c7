"""Families that are asked in words and predict a flow: Stable Diffusion 3 and Flux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.exemptions import TRANSFORMER_EXEMPT
from mpqdm_core.family import Family, Generators
from mpqdm_core.text_families import CLIP_TOKENIZERS, KL_DECODER, T5_TOKENIZERS, TEXT_LENGTH
from mpqdm_core.unet_families import no_classes, zeros_like_input

FLOW = ("diffusers.FlowMatchEulerDiscreteScheduler",)
PATCH = 2  # side of a token of Flux in latents
EXAMPLE_SIDE = 8  # tokens a side of the example; what a layer costs grows with their number


def draw_sd3(
    pipeline: Any, prompts: Sequence[str], generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw with the pipeline itself."""
    pictures: NDArray[np.float32] = pipeline(
        prompt=list(prompts),
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        output_type="np",
    ).images
    return pictures


def draw_flux(
    pipeline: Any, prompts: Sequence[str], generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw with the pipeline itself, at the size of its autoencoder.

    Where the network takes the guidance scale as an input, that is what it is given. Where it does not, a
    scale above 1 is classifier-free guidance against the empty prompt, in two calls of the network.
    """
    guidance: dict[str, Any] = {"guidance_scale": settings.guidance_scale}
    if not pipeline.transformer.config.guidance_embeds and settings.guidance_scale > 1:
        guidance = {"true_cfg_scale": settings.guidance_scale, "negative_prompt": [""] * len(prompts)}
    height, width = picture_size(pipeline)
    pictures: NDArray[np.float32] = pipeline(
        prompt=list(prompts),
        height=height,
        width=width,
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        output_type="np",
        **guidance,
    ).images
    return pictures


def decode_shifted(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode latents that are the autoencoder's, shifted and times a factor."""
    config = pipeline.vae.config
    pictures: Tensor = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def picture_size(pipeline: Any) -> tuple[int, int]:
    """Height and width that a Flux model draws; its transformer has none of its own."""
    size = pipeline.vae.config.sample_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def latents_of_flux(pipeline: Any) -> tuple[int, int, int]:
    """Shape (C, h, w) of a sample before it is packed into tokens."""
    height, width = picture_size(pipeline)
    step = pipeline.vae_scale_factor * PATCH
    return (
        pipeline.transformer.config.in_channels // PATCH**2,
        PATCH * (height // step),
        PATCH * (width // step),
    )


def unpack_flux(pipeline: Any, latents: Tensor) -> Tensor:
    """Turn tokens (N, h * w / 4, 4 C) into latents (N, C, h, w)."""
    height, width = picture_size(pipeline)
    unpacked: Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return unpacked


def pack_flux(pipeline: Any, latents: Tensor) -> Tensor:
    """Turn latents (N, C, h, w) into tokens (N, h * w / 4, 4 C)."""
    packed: Tensor = pipeline._pack_latents(latents, *latents.shape)
    return packed


def example_sd3(network: nn.Module) -> dict[str, Tensor]:
    """Zeros in every input of an SD3Transformer2DModel."""
    config: Any = network.config
    sample = zeros_like_input(network)
    return {
        "hidden_states": sample,
        "encoder_hidden_states": sample.new_zeros(1, TEXT_LENGTH, config.joint_attention_dim),
        "pooled_projections": sample.new_zeros(1, config.pooled_projection_dim),
        "timestep": sample.new_zeros(1),
    }


def example_flux(network: nn.Module) -> dict[str, Tensor]:
    """Zeros in every input of a FluxTransformer2DModel, for a small picture."""
    config: Any = network.config
    parameter = next(network.parameters())
    tokens = parameter.new_zeros(1, EXAMPLE_SIDE**2, config.in_channels)
    guidance = {"guidance": parameter.new_ones(1)} if config.guidance_embeds else {}
    return {
        "hidden_states": tokens,
        "encoder_hidden_states": tokens.new_zeros(1, TEXT_LENGTH, config.joint_attention_dim),
        "pooled_projections": tokens.new_zeros(1, config.pooled_projection_dim),
        "timestep": tokens.new_zeros(1),
        "img_ids": torch.zeros(EXAMPLE_SIDE**2, 3, device=tokens.device),
        "txt_ids": torch.zeros(TEXT_LENGTH, 3, device=tokens.device),
        **guidance,
    }


STABLE_DIFFUSION_3 = Family(
    name="stable-diffusion-3",
    title="Stable Diffusion 3",
    folder_classes=("StableDiffusion3Pipeline",),
    pipeline_class="StableDiffusion3Pipeline",
    parts={},
    library_parts={
        "transformer": ("diffusers.SD3Transformer2DModel",),
        "scheduler": FLOW,
        "vae": KL_DECODER,
        "text_encoder": ("transformers.CLIPTextModelWithProjection",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("transformers.CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_3": ("transformers.T5EncoderModel", ""),  # the empty name: it may be missing
        "tokenizer_3": (*T5_TOKENIZERS, ""),
    },
    unused_parts=("feature_extractor", "image_encoder"),
    draw=draw_sd3,
    decode=decode_shifted,
    example=example_sd3,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=7.0),
    exempt_rules=TRANSFORMER_EXEMPT,
    component="transformer",
    blocks="transformer_blocks",
    tap="norm_out",  # a block gives text and picture, this the picture alone
    schedulers=("flow-euler",),
)

FLUX = Family(
    name="flux",
    title="Flux",
    folder_classes=("FluxPipeline",),
    pipeline_class="FluxPipeline",
    parts={},
    library_parts={
        "scheduler": FLOW,
        "vae": KL_DECODER,
        "text_encoder": ("transformers.CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("transformers.T5EncoderModel",),
        "tokenizer_2": T5_TOKENIZERS,
        "transformer": ("diffusers.FluxTransformer2DModel",),
    },
    unused_parts=("feature_extractor", "image_encoder"),
    draw=draw_flux,
    decode=decode_shifted,
    example=example_flux,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=3.5),
    exempt_rules=TRANSFORMER_EXEMPT,
    component="transformer",
    blocks="transformer_blocks",
    tap="norm_out",
    conditional_first=True,
    schedulers=("flow-euler",),
    latents=latents_of_flux,
    unpack=unpack_flux,
    pack=pack_flux,
)
