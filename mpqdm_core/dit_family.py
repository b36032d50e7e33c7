"""The family of diffusers' `DiTPipeline`: a transformer on latent patches, with classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DiTPipeline, DiTTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import SettingsError
from mpqdm_core.exemptions import TRANSFORMER_EXEMPT
from mpqdm_core.family import Family, Generators
from mpqdm_core.unet_families import zeros_like_input

NULL_CLASS = 1000  # written into DiTPipeline: of any number of classes, this one stands for none


def draw_dit(
    pipeline: Any, labels: Sequence[int] | None, generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    """Draw with the pipeline itself.

    Raises:
        SettingsError: fresh noise is asked for, which DiTPipeline cannot pass to its schedule.
    """
    if settings.eta != 0.0:
        raise SettingsError(f"a DiTPipeline takes no eta: it must be 0, got {settings.eta}")
    pictures: NDArray[np.float32] = pipeline(
        list(labels or ()),
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        output_type="np",
    ).images
    return pictures


def decode_dit(pipeline: Any, latents: Tensor) -> Tensor:
    """As the pipeline decodes at its end."""
    pictures: Tensor = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def example_dit(network: nn.Module) -> dict[str, Tensor]:
    """Zeros, at the first timestep and of the first class."""
    sample = zeros_like_input(network)
    zero = torch.zeros(1, dtype=torch.long, device=sample.device)
    return {"hidden_states": sample, "timestep": zero, "class_labels": zero}


def classes_of_dit(pipeline: Any) -> tuple[int, tuple[str, ...]]:
    """Classes by the names that the pipeline knows; without names, all but the null class."""
    names = {number: name for name, number in reversed(pipeline.labels.items())}
    count = len(names) or min(NULL_CLASS, int(pipeline.transformer.config.num_embeds_ada_norm))
    return count, tuple(names.get(number, f"class {number}") for number in range(count))


DIT = Family(
    name="dit",
    title="latent diffusion transformer with classes",
    folder_classes=("DiTPipeline",),
    pipeline_class=DiTPipeline,
    parts={
        "transformer": (DiTTransformer2DModel,),
        "vae": (AutoencoderKL,),
        "scheduler": (DDIMScheduler, DDPMScheduler),
    },
    draw=draw_dit,
    decode=decode_dit,
    example=example_dit,
    classes=classes_of_dit,
    conditional=True,
    sampler=SamplerSettings(guidance_scale=4.0),
    exempt_rules=TRANSFORMER_EXEMPT,
    component="transformer",
    blocks="transformer_blocks",
    conditional_first=True,
    notes=("id2label",),
    # Its pipeline scales no first noise, as Euler needs, and steps both halves, too many for DDPM's noise.
    schedulers=("ddim", "pndm", "dpm-solver++"),
)
