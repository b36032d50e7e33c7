"""Families that are asked in words and predict noise or velocity: Stable Diffusion, SDXL, PixArt, LDM.

Prompts stand where classes do: a model knows a list of them, and a label is the number of one. Whatever the
pipeline makes of a prompt (embeddings, masks, sizes) is recorded with the network's other inputs.
"""

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
from mpqdm_core.unet_families import LATENT_SCHEDULERS, no_classes, zeros_like_input

PROMPTS = (
    "a photograph of a red fox in the snow",
    "a bowl of oranges on a wooden table",
    "an old stone bridge over a river in autumn",
    "a portrait of an elderly fisherman",
    "a small sailing boat at sunset",
    "a city street at night in the rain",
    "a bunch of sunflowers in a glass vase",
    "a snow-covered mountain under a clear sky",
)
"""What is asked of a model that brings no prompts of its own."""

TEXT_LENGTH = 77  # tokens of CLIP
CLIP_TOKENIZERS = ("transformers.CLIPTokenizer", "transformers.CLIPTokenizerFast")
T5_TOKENIZERS = ("transformers.T5Tokenizer", "transformers.T5TokenizerFast")
KL_DECODER = ("diffusers.AutoencoderKL",)
WALKERS = tuple(
    f"diffusers.{name}"
    for name in (
        *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
        *("EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"),
    )
)


def draw_prompted(
    pipeline: Any, prompts: Sequence[str], generators: Generators, settings: SamplerSettings, **rest: Any
) -> NDArray[np.float32]:
    """Draw with the pipeline itself."""
    pictures: NDArray[np.float32] = pipeline(
        prompt=list(prompts),
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        eta=settings.eta,
        output_type="np",
        **rest,
    ).images
    return pictures


def draw_pixart(
    pipeline: Any, prompts: Sequence[str], generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw in the size the model was made for, prompts taken as they are."""
    rest = {"clean_caption": False, "use_resolution_binning": False}
    return draw_prompted(pipeline, prompts, generators, settings, **rest)


def decode_scaled(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode latents that are the autoencoder's times a factor."""
    vae = getattr(pipeline, "vae", None) or pipeline.vqvae
    pictures: Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def decode_ldm_text(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode as LDMTextToImagePipeline does: multiplied by the inverse, which rounds otherwise."""
    vae = pipeline.vqvae
    pictures: Tensor = vae.decode(1 / vae.config.scaling_factor * latents).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def decode_sdxl(pipeline: Any, latents: Tensor) -> Tensor:
    """Decode as StableDiffusionXLPipeline does: some autoencoders say mean and deviation of their latents."""
    config = pipeline.vae.config
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return decode_scaled(pipeline, latents)
    shape = (1, -1, 1, 1)
    scaled = latents * torch.tensor(deviation).view(shape).to(latents) / config.scaling_factor
    pictures: Tensor = pipeline.vae.decode(scaled + torch.tensor(mean).view(shape).to(latents)).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def example_text_unet(network: nn.Module) -> dict[str, Any]:
    """Zeros in every input of a UNet2DConditionModel."""
    config: Any = network.config
    sample = zeros_like_input(network)
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    text = sample.new_zeros(1, TEXT_LENGTH, config.encoder_hid_dim or width)
    zero = torch.zeros(1, dtype=torch.long, device=sample.device)
    arguments = {"sample": sample, "timestep": zero, "encoder_hidden_states": text}
    if config.addition_embed_type != "text_time":
        return arguments
    sizes = 6  # original size, crop, target size; or with an aesthetic score, five numbers
    pooled = config.projection_class_embeddings_input_dim - sizes * config.addition_time_embed_dim
    added = {"text_embeds": sample.new_zeros(1, pooled), "time_ids": sample.new_zeros(1, sizes)}
    return {**arguments, "added_cond_kwargs": added}


def example_pixart(network: nn.Module) -> dict[str, Any]:
    """Zeros in every input of a PixArtTransformer2DModel."""
    config: Any = network.config
    sample = zeros_like_input(network)
    text = sample.new_zeros(1, TEXT_LENGTH, config.caption_channels)
    sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    additional = config.use_additional_conditions
    if additional or (additional is None and config.sample_size == 128):
        sizes = {"resolution": sample.new_zeros(1, 2), "aspect_ratio": sample.new_zeros(1, 1)}
    zero = torch.zeros(1, dtype=torch.long, device=sample.device)
    return {
        "hidden_states": sample,
        "encoder_hidden_states": text,
        "encoder_attention_mask": sample.new_ones(1, TEXT_LENGTH),
        "timestep": zero,
        "added_cond_kwargs": sizes,
    }


LDM_TEXT = Family(
    name="ldm-text",
    title="latent diffusion with prompts",
    folder_classes=("LDMTextToImagePipeline",),
    pipeline_class="LDMTextToImagePipeline",
    parts={},
    library_parts={
        "vqvae": ("diffusers.VQModel", "diffusers.AutoencoderKL"),
        "bert": ("diffusers.pipelines.latent_diffusion.LDMBertModel", "transformers.CLIPTextModel"),
        "tokenizer": ("transformers.BertTokenizer", "transformers.BertTokenizerFast", *CLIP_TOKENIZERS),
        "unet": ("diffusers.UNet2DConditionModel",),
        "scheduler": WALKERS,
    },
    draw=draw_prompted,
    decode=decode_ldm_text,
    example=example_text_unet,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=6.0),
    schedulers=("ddim", "pndm"),  # its pipeline scales neither the first noise nor the network's input
)

STABLE_DIFFUSION = Family(
    name="stable-diffusion",
    title="Stable Diffusion 1 and 2",
    folder_classes=("StableDiffusionPipeline",),
    pipeline_class="StableDiffusionPipeline",
    parts={},
    library_parts={
        "vae": KL_DECODER,
        "text_encoder": ("transformers.CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "unet": ("diffusers.UNet2DConditionModel",),
        "scheduler": WALKERS,
    },
    # A safety checker judges finished pictures and would blacken some of what is to be compared.
    unused_parts=("safety_checker", "feature_extractor", "image_encoder"),
    draw=draw_prompted,
    decode=decode_scaled,
    example=example_text_unet,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=7.5),
    schedulers=LATENT_SCHEDULERS,
)

STABLE_DIFFUSION_XL = Family(
    name="stable-diffusion-xl",
    title="Stable Diffusion XL",
    folder_classes=("StableDiffusionXLPipeline",),
    pipeline_class="StableDiffusionXLPipeline",
    parts={},
    library_parts={
        "vae": KL_DECODER,
        "text_encoder": ("transformers.CLIPTextModel",),
        "text_encoder_2": ("transformers.CLIPTextModelWithProjection",),
        "tokenizer": CLIP_TOKENIZERS,
        "tokenizer_2": CLIP_TOKENIZERS,
        "unet": ("diffusers.UNet2DConditionModel",),
        "scheduler": WALKERS,
    },
    unused_parts=("feature_extractor", "image_encoder"),
    notes=("force_zeros_for_empty_prompt",),
    draw=draw_prompted,
    decode=decode_sdxl,
    example=example_text_unet,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=5.0),
    schedulers=LATENT_SCHEDULERS,
)

PIXART = Family(
    name="pixart",
    title="PixArt-alpha",
    folder_classes=("PixArtAlphaPipeline",),
    pipeline_class="PixArtAlphaPipeline",
    parts={},
    library_parts={
        "tokenizer": T5_TOKENIZERS,
        "text_encoder": ("transformers.T5EncoderModel",),
        "vae": KL_DECODER,
        "transformer": ("diffusers.PixArtTransformer2DModel",),
        "scheduler": WALKERS,
    },
    draw=draw_pixart,
    decode=decode_scaled,
    example=example_pixart,
    classes=no_classes,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=4.5),
    exempt_rules=TRANSFORMER_EXEMPT,
    component="transformer",
    blocks="transformer_blocks",
    schedulers=LATENT_SCHEDULERS,
)
