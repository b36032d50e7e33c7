"""The kinds of models that can be loaded, by name.

A family contributes only what is particular to it; sampling is always done by the model's own pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from mpqdm_core.denoiser import Denoiser, ExemptRule, SamplerSettings, hash_network
from mpqdm_core.dit_family import DIT
from mpqdm_core.errors import SettingsError
from mpqdm_core.family import Family as Family
from mpqdm_core.flow_families import FLUX, STABLE_DIFFUSION_3
from mpqdm_core.text_families import LDM_TEXT, PIXART, PROMPTS, STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from mpqdm_core.unet_families import CLASS_CONDITIONAL_LDM, DDPM, LDM
from mpqdm_core.weightless import list_layers

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            *(DDPM, LDM, CLASS_CONDITIONAL_LDM, DIT),
            *(LDM_TEXT, STABLE_DIFFUSION, STABLE_DIFFUSION_XL, PIXART, STABLE_DIFFUSION_3, FLUX),
        )
    }
)
"""Every family by name."""


def make_denoiser(
    pipeline: Any,
    family: Family,
    *,
    name: str,
    source: str,
    exempt_rules: Sequence[ExemptRule] | None = None,
    prompts: Sequence[str] | None = None,
) -> Denoiser:
    """Describe a pipeline as a `Denoiser`; its modules are put into evaluation mode and lose their gradients.

    Args:
        pipeline: an instance of `family.pipeline_class`.
        family: what it is.
        name: how it is called.
        source: where it comes from.
        exempt_rules: instead of the family's own.
        prompts: of a prompted family, instead of a few everyday ones; labels number them.

    Raises:
        SettingsError: prompts for a family that takes none, or none at all.
    """
    if prompts is not None and (not family.prompted or not prompts):
        raise SettingsError(
            f"a {family.title} takes {'at least one prompt' if family.prompted else 'no prompts'}"
        )
    network = getattr(pipeline, family.component)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    num_classes, names = family.classes(pipeline) or (None, ())
    if family.prompted:
        names = tuple(prompts or PROMPTS)
        num_classes = len(names)
    return Denoiser(
        name=name,
        family=family.name,
        pipeline=pipeline,
        network=network,
        layers=list_layers(network, family, family.exempt_rules if exempt_rules is None else exempt_rules),
        sampler=_sampler(pipeline, family),
        num_classes=num_classes,
        class_names=names,
        content_hash=hash_network(network, pipeline.scheduler),
        source=source,
        latents=None if family.latents is None else family.latents(pipeline),
    )


def with_prompts(denoiser: Denoiser, prompts: Sequence[str]) -> Denoiser:
    """The same text-to-image model with other prompts: label k asks for the k-th of them.

    Raises:
        SettingsError: the model takes no prompts, or there are none.
    """
    if not FAMILIES[denoiser.family].prompted:
        raise SettingsError(f"{denoiser.name} is not asked in words: it takes no prompts")
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise SettingsError("prompts must be at least one sentence")
    return replace(denoiser, num_classes=len(prompts), class_names=tuple(prompts))


def _sampler(pipeline: Any, family: Family) -> SamplerSettings:
    """Take the family's settings, with the guidance scale that the folder says the model was measured at."""
    if family is FLUX and not pipeline.transformer.config.guidance_embeds:
        return replace(family.sampler, guidance_scale=1.0)  # distilled to need none
    scale = pipeline.config.get("guidance_scale") if family.conditional else None
    return family.sampler if scale is None else replace(family.sampler, guidance_scale=float(scale))
