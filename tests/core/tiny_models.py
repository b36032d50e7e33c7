"""Random models of every family, small enough to be made and sampled in a fraction of a second."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    LDMPipeline,
    UNet2DModel,
    VQModel,
)

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

CLASS_NAMES = ("cat", "house", "tree")


def tiny_unet(channels: int = 4, num_class_embeds: int | None = None, **changes) -> UNet2DModel:
    settings = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 32,
        "num_class_embeds": num_class_embeds,
    }
    return UNet2DModel(**{**settings, **changes})


def tiny_vae(**changes) -> AutoencoderKL:
    settings = {
        "block_out_channels": (32,),
        "latent_channels": 4,
        "sample_size": 8,
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
        "scaling_factor": 0.5,
        "shift_factor": 0.1,
    }
    return AutoencoderKL(**{**settings, **changes})


def latent_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)


def tiny_pipeline(family: str, seed: int = 0):
    """A pipeline of the family with random weights; "ddpm" is saved as DDPMPipeline."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "class-conditional-ldm":
            unet = tiny_unet(num_class_embeds=len(CLASS_NAMES) + 1)
            pipeline = ClassConditionalLDMPipeline(
                unet, tiny_vae(), latent_scheduler(), class_names=CLASS_NAMES
            )
        elif family == "ldm":
            vqvae = VQModel(block_out_channels=(32,), latent_channels=3, num_vq_embeddings=16)
            pipeline = LDMPipeline(vqvae, tiny_unet(channels=3), latent_scheduler())
        elif family == "ddim":
            pipeline = DDIMPipeline(tiny_unet(channels=3), DDIMScheduler())
        else:
            pipeline = DDPMPipeline(tiny_unet(channels=3), DDPMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_denoiser(family: str = "class-conditional-ldm", seed: int = 0) -> Denoiser:
    pipeline = tiny_pipeline(family, seed)
    if family in ("ddpm", "ddim"):
        family = "ddpm"
        pipeline = DDIMPipeline(pipeline.unet, pipeline.scheduler)
    return make_denoiser(pipeline, FAMILIES[family], name=f"tiny-{family}", source="test")


def save_model(folder: Path, family: str, seed: int = 0) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own, about saving
        tiny_pipeline(family, seed).save_pretrained(folder)
    return folder
