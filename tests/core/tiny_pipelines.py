"""Random text-to-image pipelines of every family, tokenizers and text encoders included, small as can be."""

from __future__ import annotations

import string
import warnings
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LDMTextToImagePipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tiny_models import tiny_vae
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.families import FAMILIES, make_denoiser

PROMPTS = ("a red star", "two blue fish", "green")
LETTERS = string.ascii_lowercase
WIDTH, POOLED = 16, 32
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
GUIDED = {
    "ldm-text": 2.0, "stable-diffusion": 3.0, "stable-diffusion-xl": 3.0, "pixart": 3.0,
    "stable-diffusion-3": 3.0, "flux": 3.0,
}  # fmt: skip


def clip_tokenizer() -> CLIPTokenizer:
    """Knows letters, alone and at the end of a word."""
    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def clip_encoder(cls=CLIPTextModel, seed=0):
    config = CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=POOLED, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return cls(config)


def t5_tokenizer() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    return T5Tokenizer(vocab=[(piece, -2.0) for piece in pieces], extra_ids=0, model_max_length=512)


def t5_encoder():
    config = T5Config(vocab_size=64, d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def text_unet(**changes):
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64),
        "layers_per_block": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
    }  # fmt: skip
    return UNet2DConditionModel(**{**settings, **changes})


def _stable_diffusion(**changes):
    return StableDiffusionPipeline(
        vae=tiny_vae(shift_factor=None), text_encoder=clip_encoder(), tokenizer=clip_tokenizer(),
        unet=text_unet(), scheduler=changes.get("scheduler") or PNDMScheduler(skip_prk_steps=True, **NOISE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _stable_diffusion_xl():
    unet = text_unet(
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED + 6 * 8, transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=tiny_vae(shift_factor=None), text_encoder=clip_encoder(), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(), unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **NOISE),
    )  # fmt: skip


def _pixart():
    transformer = PixArtTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=WIDTH, caption_channels=2 * WIDTH,
    )  # fmt: skip
    return PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder(), vae=tiny_vae(shift_factor=None),
        transformer=transformer, scheduler=DDIMScheduler(clip_sample=False, **NOISE),
    )  # fmt: skip


def _ldm_text():
    vae = tiny_vae(
        shift_factor=None, block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return LDMTextToImagePipeline(
        vqvae=vae, bert=clip_encoder(), tokenizer=clip_tokenizer(), unet=text_unet(),
        scheduler=DDIMScheduler(clip_sample=False, **NOISE),
    )  # fmt: skip


def _stable_diffusion_3():
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=2 * WIDTH, caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * POOLED, pos_embed_max_size=8,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=tiny_vae(),
        text_encoder=clip_encoder(CLIPTextModelWithProjection), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def _flux(guidance_embeds=True):
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=2 * WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 6, 6),
        guidance_embeds=guidance_embeds,
    )  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=tiny_vae(),
        text_encoder=clip_encoder(), tokenizer=clip_tokenizer(), text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(), transformer=transformer,
    )  # fmt: skip


MAKERS = {
    "ldm-text": _ldm_text, "stable-diffusion": _stable_diffusion, "stable-diffusion-xl": _stable_diffusion_xl,
    "pixart": _pixart, "stable-diffusion-3": _stable_diffusion_3, "flux": _flux,
}  # fmt: skip


def text_pipeline(family: str, seed: int = 0, **changes):
    """A pipeline of the family with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = MAKERS[family](**changes)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


def text_denoiser(family: str, **changes) -> Denoiser:
    pipeline = text_pipeline(family, **changes)
    return make_denoiser(pipeline, FAMILIES[family], name=f"tiny-{family}", source="test", prompts=PROMPTS)


def save_text_model(folder: Path, family: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own, about saving
        text_pipeline(family).save_pretrained(folder)
    return folder


def few_steps(family: str, steps: int = 3) -> SamplerSettings:
    return SamplerSettings(num_inference_steps=steps, guidance_scale=GUIDED[family])
