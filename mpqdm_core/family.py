"""What the library has to know of a kind of model: its parts, how it is drawn, what is exempt in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import ExemptRule, SamplerSettings
from mpqdm_core.exemptions import STANDARD_EXEMPT

Generators = list[torch.Generator]
Drawer = Callable[[Any, Sequence[int] | None, Generators, SamplerSettings], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular to one kind of model.

    `parts` maps each component of the pipeline to the classes it may be. `draw` takes pipeline, labels, one
    generator per sample and settings, and returns (N, H, W, channels) in [0, 1]. `decode` takes pipeline and
    (N, C, h, w) and returns (N, channels, H, W) in [0, 1]. `predict` takes network, latents (n, C, h, w), one
    timestep and labels (n,) or None and returns the predicted noise. `example` takes a network and returns
    arguments for one forward pass of one sample. `classes` takes a pipeline and returns the number of classes
    and their names, or None; the null class of guidance has the number `null_label` gives.
    """

    name: str
    title: str
    folder_classes: tuple[str, ...]  # _class_name in model_index.json
    pipeline_class: type[Any]
    parts: Mapping[str, tuple[type[Any], ...]]
    draw: Drawer
    decode: Callable[[Any, Tensor], Tensor]
    predict: Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
    example: Callable[[nn.Module], dict[str, Tensor]]
    classes: Callable[[Any], tuple[int, tuple[str, ...]] | None]
    null_label: Callable[[Any], int]
    conditional: bool
    sampler: SamplerSettings
    alternatives: Mapping[str, str] = field(
        default_factory=dict
    )  # part -> another name it goes by in folders
    exempt_rules: tuple[ExemptRule, ...] = STANDARD_EXEMPT
    component: str = "unet"  # the pipeline's part that is quantized
    blocks: str = "up_blocks"  # the last of these gives the feature before the final projection
    conditional_first: bool = False  # order of the two halves of a guided call
    notes: tuple[str, ...] = ()  # entries of model_index.json that the pipeline takes beside its parts

    def feature_tap(self, network: nn.Module) -> str:
        """Name of the module whose output is the feature before the final projection.

        A map (N, C, h, w), or tokens (N, h * w, C): see `recording.feature_map`.
        """
        return f"{self.blocks}.{len(network.get_submodule(self.blocks)) - 1}"  # type: ignore[arg-type]
