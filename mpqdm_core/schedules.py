"""Schedules: which sampler walks from noise to picture, and what a step of each does with a prediction.

The noise schedule belongs to the model, the way through it does not: `with_scheduler` changes the way and
keeps everything that was measured on the model valid. Timesteps that nothing was measured at use the nearest.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from mpqdm_core.denoiser import Denoiser, rebuild_pipeline
from mpqdm_core.errors import SettingsError
from mpqdm_core.families import FAMILIES

SCHEDULERS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "ddim": DDIMScheduler,
        "ddpm": DDPMScheduler,
        "pndm": PNDMScheduler,
        "euler": EulerDiscreteScheduler,
        "euler-ancestral": EulerAncestralDiscreteScheduler,
        "dpm-solver++": DPMSolverMultistepScheduler,
        "flow-euler": FlowMatchEulerDiscreteScheduler,
    }
)
"""Every sampler by the name that settings give it."""

ANY_SHIFT = 1.0  # of a flow schedule that shifts with the size of the picture; does not change its length


def with_scheduler(denoiser: Denoiser, name: str) -> Denoiser:
    """The same model drawn by another sampler, which knows the same noise schedule.

    The content hash stays: calibrations, bit plans and adapters of the model go on to fit it, and timesteps
    they were not made for use the nearest (`Samples.notes` says which).

    Args:
        denoiser: full precision or quantized.
        name: one of the family's, see `scheduler_names`.

    Raises:
        SettingsError: the model's pipeline cannot be drawn by it.
    """
    names = scheduler_names(denoiser)
    if name not in names:
        raise SettingsError(f"{denoiser.name} can be drawn by {', '.join(names)}, not by {name!r}")
    changes = {"skip_prk_steps": True} if name == "pndm" else {}  # PLMS: one call of the network a step
    scheduler = SCHEDULERS[name].from_config(denoiser.pipeline.scheduler.config, **changes)
    return replace(denoiser, pipeline=rebuild_pipeline(denoiser.pipeline, scheduler=scheduler))


def scheduler_names(denoiser: Denoiser) -> tuple[str, ...]:
    """The samplers that a model's pipeline can be drawn by."""
    return FAMILIES[denoiser.family].schedulers


def fresh_scheduler(scheduler: Any) -> Any:
    """One with the same settings that nobody has walked with."""
    return type(scheduler).from_config(scheduler.config)


def takes(scheduler: Any, argument: str) -> bool:
    """Whether a step of this sampler has such an argument: "eta", "generator"."""
    return argument in inspect.signature(scheduler.step).parameters


def step_count(scheduler: Any, num_inference_steps: int) -> int:
    """How often the network is asked: PNDM asks once more than it is told."""
    fresh = fresh_scheduler(scheduler)
    shift = {"mu": ANY_SHIFT} if fresh.config.get("use_dynamic_shifting") else {}
    fresh.set_timesteps(num_inference_steps, **shift)
    return len(fresh.timesteps)


def predicted_x0(scheduler: Any, result: Any, prediction: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The final latent as a step sees it.

    Args:
        scheduler: that has just taken the step.
        result: of the step; some samplers say it themselves.
        prediction: of the network: noise, velocity or flow.
        timestep: of the step.
        sample: x_t.
    """
    said: Tensor | None = getattr(result, "pred_original_sample", None)
    if said is not None:
        return said
    kind = prediction_kind(scheduler)
    alpha, sigma = _signal_and_noise(scheduler, timestep, kind)
    if kind == "flow":
        return sample - sigma * prediction
    if kind == "v_prediction":
        return alpha * sample - sigma * prediction
    if kind == "sample":
        return prediction
    return (sample - sigma * prediction) / alpha


def prediction_kind(scheduler: Any) -> str:
    """What the network predicts: "epsilon", "v_prediction", "sample" or "flow"."""
    kind = scheduler.config.get("prediction_type", "epsilon")
    flows = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or kind == "flow_prediction"
    return "flow" if flows else str(kind)


def step_factors(scheduler: Any, timesteps: Sequence[int]) -> Tensor:
    """(T,) factor with which a prediction's error enters the next latent, in a first-order step.

    With a and a' the cumulative alphas of this timestep and the next: sqrt(1 - a') - sqrt(a' (1 - a) / a) for
    noise, sqrt(a (1 - a')) - sqrt(a' (1 - a)) for velocity; the difference of two timesteps for flow.

    Args:
        scheduler: of the model.
        timesteps: falling.
    """
    factors: Tensor
    now = torch.tensor(timesteps, dtype=torch.float64)
    if prediction_kind(scheduler) == "flow":
        share = now / float(scheduler.config.num_train_timesteps)
        return torch.cat([share[1:], share.new_zeros(1)]) - share
    alphas = scheduler.alphas_cumprod.double().cpu()
    last = getattr(scheduler, "final_alpha_cumprod", torch.ones(()))
    a = alphas[[min(step, len(alphas) - 1) for step in timesteps]]
    after = torch.cat([a[1:], torch.as_tensor(last).double().reshape(1)])
    if prediction_kind(scheduler) == "v_prediction":
        factors = (a * (1 - after)).sqrt() - (after * (1 - a)).sqrt()
    else:
        factors = (1 - after).sqrt() - (after * (1 - a) / a).sqrt()
    return factors


def _signal_and_noise(scheduler: Any, timestep: Any, kind: str) -> tuple[float, float]:
    """Factors of picture and noise in x_t, for samplers that do not say the picture themselves."""
    index = getattr(scheduler, "step_index", None)
    if index is not None and hasattr(scheduler, "sigmas"):
        ratio = float(scheduler.sigmas[index - 1])  # the step has counted on
        if kind == "flow":
            return 1.0 - ratio, ratio
        alpha = float((1.0 + ratio**2) ** -0.5)
        return alpha, ratio * alpha
    cumulative = float(scheduler.alphas_cumprod[int(timestep)])
    return float(cumulative**0.5), float((1.0 - cumulative) ** 0.5)
