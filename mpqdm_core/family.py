"""What the library has to know of a kind of model: its parts, how it is drawn, what is exempt in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mpqdm_core.denoiser import ExemptRule, SamplerSettings
from mpqdm_core.exemptions import STANDARD_EXEMPT

Generators = list[torch.Generator]
Drawer = Callable[[Any, Any, Generators, SamplerSettings], NDArray[np.float32]]
Reshape = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular to one kind of model.

    `parts` maps each component of the pipeline to the classes it may be. `draw` takes pipeline, labels (of a
    prompted family: prompts), one generator per sample and settings, and returns (N, H, W, channels) in
    [0, 1]. `decode` takes pipeline and (N, C, h, w) and returns (N, channels, H, W) in [0, 1]. `example`
    takes a network and returns arguments for one forward pass of one sample. `classes` takes a pipeline and
    returns the number of classes and their names, or None. `unpack` takes pipeline and latents as the
    scheduler sees them and returns (N, C, h, w), `pack` goes back; None where it sees that shape.
    """

    name: str
    title: str
    folder_classes: tuple[str, ...]  # _class_name in model_index.json
    pipeline_class: Any  # a class, or its name in diffusers
    parts: Mapping[str, tuple[type[Any], ...]]
    draw: Drawer
    decode: Callable[[Any, Tensor], Tensor]
    example: Callable[[nn.Module], dict[str, Tensor]]
    classes: Callable[[Any], tuple[int, tuple[str, ...]] | None]
    conditional: bool
    sampler: SamplerSettings
    alternatives: Mapping[str, str] = field(
        default_factory=dict
    )  # part -> another name it goes by in folders
    exempt_rules: tuple[ExemptRule, ...] = STANDARD_EXEMPT
    component: str = "unet"  # the pipeline's part that is quantized
    blocks: str = "up_blocks"  # the last of these gives the feature before the final projection
    tap: str = ""  # gives that feature instead, where a block's output is not it
    conditional_first: bool = False  # order of the two halves of a guided call, or of two calls
    notes: tuple[str, ...] = ()  # entries of model_index.json that the pipeline takes beside its parts
    schedulers: tuple[str, ...] = ("ddim",)  # keys of schedules.SCHEDULERS that the pipeline can be drawn by
    library_parts: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # part -> "library.Class", imported when a model is loaded; beside `parts`, for prompted families
    unused_parts: tuple[str, ...] = ()  # of a folder, that no picture needs
    latents: Callable[[Any], tuple[int, int, int]] | None = None  # None: the network's config says it
    unpack: Reshape | None = None
    pack: Reshape | None = None

    @property
    def prompted(self) -> bool:
        """Whether a sample is asked for in words: labels then number the prompts in `class_names`."""
        return bool(self.library_parts)

    def feature_tap(self, network: nn.Module) -> str:
        """Name of the module whose output is the feature before the final projection.

        A map (N, C, h, w), or tokens (N, h * w, C): see `recording.feature_map`.
        """
        if self.tap:
            return self.tap
        return f"{self.blocks}.{len(network.get_submodule(self.blocks)) - 1}"  # type: ignore[arg-type]
