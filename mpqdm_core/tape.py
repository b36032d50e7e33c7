"""What one batch goes through, written down where a pipeline meets its schedule.

`scheduler.step` receives x_t and the guided prediction and returns x_{t-1}, in every pipeline alike, however
the guidance was computed: both halves in one call, in two calls, or inside the network.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpqdm_core.denoiser import Denoiser, SamplerSettings, rebuild_pipeline
from mpqdm_core.families import FAMILIES
from mpqdm_core.schedules import fresh_scheduler, predicted_x0
from mpqdm_core.timesteps import timestep_value

Record = Literal["none", "latents", "all"]
Reshape = Callable[[Any, Tensor], Tensor]


def _as_they_are(pipeline: Any, latents: Tensor) -> Tensor:
    del pipeline  # most pipelines walk on maps
    return latents


class WayEnded(Exception):  # noqa: N818 - no error: it leaves a pipeline whose pictures nobody wants
    """The last step of a given way was taken."""


@dataclass(kw_only=True)
class Tape:
    """A batch's inputs, predictions and predicted pictures, each (n, C, h, w) per step."""

    record: Record
    advance: Callable[[], None]
    given: NDArray[np.float32] | None = None  # (T, n, C, h, w): a way to follow instead of one's own
    timesteps: list[int] = field(default_factory=list)
    inputs: list[NDArray[np.float32]] = field(default_factory=list)
    predictions: list[NDArray[np.float32]] = field(default_factory=list)
    finals: list[NDArray[np.float32]] = field(default_factory=list)
    final: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    _unpack: Reshape = field(default_factory=lambda: _as_they_are, init=False)
    _pack: Reshape = field(default_factory=lambda: _as_they_are, init=False)

    def draw(
        self, denoiser: Denoiser, labels: list[int] | None, seeds: list[int], settings: SamplerSettings
    ) -> NDArray[np.float32]:
        """Draw pictures (n, H, W, channels) in [0, 1] with a pipeline and scheduler of their own.

        Raises:
            WayEnded: a given way was walked to its end.
        """
        family = FAMILIES[denoiser.family]
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        scheduler = fresh_scheduler(denoiser.pipeline.scheduler)
        pipeline = rebuild_pipeline(denoiser.pipeline, scheduler=scheduler)
        if family.unpack is not None and family.pack is not None:
            self._unpack, self._pack = family.unpack, family.pack
        self._listen(pipeline, generators)
        wishes: Any = labels
        if family.prompted and labels is not None:
            wishes = [denoiser.class_names[label] for label in labels]
        return family.draw(pipeline, wishes, generators, settings)

    def _listen(self, pipeline: Any, generators: list[torch.Generator]) -> None:
        """Stand in for the step of a scheduler that nobody else uses."""
        scheduler = pipeline.scheduler
        step = scheduler.step
        taken = inspect.signature(step).parameters
        # LDMPipeline passes eta but no generator: the noise would come from the global one.
        always = {"return_dict": True, **({"generator": generators} if "generator" in taken else {})}
        own = slice(len(generators))  # DiTPipeline steps both halves of guidance, which are equal

        @functools.wraps(step)  # pipelines look which arguments it has
        def recorded_step(model_output: Tensor, timestep: Any, sample: Tensor, **rest: Any) -> Any:
            given = {**{k: v for k, v in rest.items() if k in taken}, **always}
            result = step(model_output, timestep, sample, **given)
            x0 = predicted_x0(scheduler, result, model_output, timestep, sample)
            self.timesteps.append(timestep_value(timestep))
            if self.record != "none":
                self.inputs.append(self._array(pipeline, sample[own]))
            if self.record == "all":
                self.predictions.append(self._array(pipeline, model_output[own]))
                self.finals.append(self._array(pipeline, x0[own]))
            self.final = self._array(pipeline, result.prev_sample[own])
            self.advance()
            if self.given is not None:
                result.prev_sample = self._next_given(pipeline, self.given, sample)
            return result

        scheduler.step = recorded_step

    def _next_given(self, pipeline: Any, given: NDArray[np.float32], sample: Tensor) -> Tensor:
        place = len(self.timesteps)
        if place == len(given):
            raise WayEnded
        latents = torch.from_numpy(np.ascontiguousarray(given[place])).to(sample)
        packed = self._pack(pipeline, latents)
        return packed.repeat(len(sample) // len(packed), *[1] * (packed.ndim - 1))

    def _array(self, pipeline: Any, tensor: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self._unpack(pipeline, tensor.detach()).float().cpu().numpy()
        return array
