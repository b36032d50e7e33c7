"""The kinds of models that can be loaded: what each is made of, what is exempt in it, and how it draws.

A family contributes only this; sampling is always done by the model's own diffusers pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
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

from mpqdm_core.denoiser import Denoiser, ExemptRule, SamplerSettings, describe_layers, hash_network
from mpqdm_core.exemptions import STANDARD_EXEMPT
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

Generators = list[torch.Generator]
Drawer = Callable[[Any, Sequence[int] | None, Generators, SamplerSettings], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular to one kind of model.

    `parts` maps each component of the pipeline to the classes it may be. `draw` takes pipeline, labels, one
    generator per sample and settings, and returns (N, H, W, channels) in [0, 1]. `decode` takes pipeline and
    (N, C, h, w) and returns (N, channels, H, W) in [0, 1].
    """

    name: str
    title: str
    folder_classes: tuple[str, ...]  # _class_name in model_index.json
    pipeline_class: type[Any]
    parts: Mapping[str, tuple[type[Any], ...]]
    draw: Drawer
    decode: Callable[[Any, Tensor], Tensor]
    conditional: bool
    sampler: SamplerSettings
    alternatives: Mapping[str, str] = field(
        default_factory=dict
    )  # part -> another name it goes by in folders
    exempt_rules: tuple[ExemptRule, ...] = STANDARD_EXEMPT

    def feature_tap(self, network: nn.Module) -> str:
        """Name of the module whose output (N, C, h, w) is the feature before the final projection."""
        blocks: Any = network.get_submodule("up_blocks")
        return f"up_blocks.{len(blocks) - 1}"


def _draw_unconditional(
    pipeline: Any, labels: Sequence[int] | None, generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    del labels  # there are none; sampling.sample has refused any
    pictures: NDArray[np.float32] = pipeline(
        batch_size=len(generators),
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        eta=settings.eta,
        output_type="np",
    ).images
    return pictures


def _draw_class_conditional(
    pipeline: Any, labels: Sequence[int] | None, generators: Generators, settings: SamplerSettings
) -> NDArray[np.float32]:
    pictures: NDArray[np.float32] = pipeline(
        labels,
        generator=generators,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        eta=settings.eta,
        output_type="np",
    ).images
    return pictures


def _decode_pixels(pipeline: Any, latents: Tensor) -> Tensor:
    del pipeline  # a pixel-space model's latents are its pictures
    return (latents / 2 + 0.5).clamp(0, 1)


def _decode_ldm(pipeline: Any, latents: Tensor) -> Tensor:
    pictures: Tensor = pipeline.vqvae.decode(latents / pipeline.vqvae.config.scaling_factor).sample
    return (pictures / 2 + 0.5).clamp(0, 1)


def _decode_class_conditional(pipeline: Any, latents: Tensor) -> Tensor:
    pictures: Tensor = pipeline.decode_latents(latents)
    return pictures


_SCHEDULERS = (DDIMScheduler, DDPMScheduler)  # both describe the same noise; DDIM steps are made from either
_UNGUIDED = SamplerSettings(guidance_scale=1.0)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="ddpm",
                title="pixel-space diffusion without classes",
                folder_classes=("DDPMPipeline", "DDIMPipeline"),
                pipeline_class=DDIMPipeline,
                parts={"unet": (UNet2DModel,), "scheduler": _SCHEDULERS},
                draw=_draw_unconditional,
                decode=_decode_pixels,
                conditional=False,
                sampler=_UNGUIDED,
            ),
            Family(
                name="ldm",
                title="latent diffusion without classes",
                folder_classes=("LDMPipeline", "LatentDiffusionUncondPipeline"),
                pipeline_class=LDMPipeline,
                parts={"unet": (UNet2DModel,), "vqvae": (VQModel, AutoencoderKL), "scheduler": _SCHEDULERS},
                draw=_draw_unconditional,
                decode=_decode_ldm,
                conditional=False,
                sampler=_UNGUIDED,
                alternatives={"vqvae": "vae"},
            ),
            Family(
                name="class-conditional-ldm",
                title="latent diffusion with classes",
                folder_classes=("ClassConditionalLDMPipeline",),
                pipeline_class=ClassConditionalLDMPipeline,
                parts={"unet": (UNet2DModel,), "vae": (AutoencoderKL,), "scheduler": _SCHEDULERS},
                draw=_draw_class_conditional,
                decode=_decode_class_conditional,
                conditional=True,
                sampler=SamplerSettings(),
            ),
        )
    }
)
"""Every family by name. A DDPM folder is sampled with DDIM steps, as diffusers' DDIMPipeline allows: paired
comparison needs a sampler that adds no noise of its own, and eta = 1 brings the noise back."""


def make_denoiser(
    pipeline: Any, family: Family, *, name: str, source: str, exempt_rules: Sequence[ExemptRule] | None = None
) -> Denoiser:
    """Describe a pipeline as a `Denoiser`; its modules are put into evaluation mode and lose their gradients.

    Args:
        pipeline: an instance of `family.pipeline_class`.
        family: what it is.
        name: how it is called.
        source: where it comes from.
        exempt_rules: instead of the family's own.
    """
    network = pipeline.unet
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    num_classes = pipeline.num_classes if family.conditional else None
    names = getattr(pipeline.config, "class_names", None) or [f"class {k}" for k in range(num_classes or 0)]
    return Denoiser(
        name=name,
        family=family.name,
        pipeline=pipeline,
        network=network,
        layers=describe_layers(
            network, example_inputs(network), family.exempt_rules if exempt_rules is None else exempt_rules
        ),
        sampler=_sampler(pipeline, family),
        num_classes=num_classes,
        class_names=tuple(names),
        content_hash=hash_network(network, pipeline.scheduler),
        source=source,
    )


def example_inputs(network: nn.Module) -> dict[str, Tensor]:
    """Arguments for one forward pass of one sample: zeros, at the first timestep and of the first class."""
    config: Any = network.config
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    parameter = next(network.parameters())
    sample = torch.zeros(1, config.in_channels, height, width, device=parameter.device, dtype=parameter.dtype)
    zero = torch.zeros(1, dtype=torch.long, device=parameter.device)
    labels = {} if config.num_class_embeds is None else {"class_labels": zero}
    return {"sample": sample, "timestep": zero, **labels}


def _sampler(pipeline: Any, family: Family) -> SamplerSettings:
    """Take the family's settings, with the guidance scale that the folder says the model was measured at."""
    scale = pipeline.config.get("guidance_scale") if family.conditional else None
    return family.sampler if scale is None else replace(family.sampler, guidance_scale=float(scale))
