"""Bounds on configurations of model folders, checked before anything is built from them.

A configuration is a few numbers that decide how much is built: one digit too many, by accident or by design,
and building takes for ever or all memory. The weights beside it say how much can be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from mpqdm_core.errors import LoadError
from mpqdm_core.strict_json import shown

MAX_NUMBER = 10**7  # vocabularies have 10**5 entries, nothing in a configuration has more
MAX_SIDE = 1024  # of what is denoised, in pixels
MAX_TIMESTEPS = 10**5
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
MAX_GRID_NUMBERS = 2**31  # of a table of positions
MIN_MAX_MACS = 2 * 10**12  # of one call; seconds on two cores
MAX_MACS_PER_WEIGHT = 2**14  # positions that a weight serves; 4,096 in a picture of 1,024 x 1,024 pixels


def check_model_config(config: Mapping[str, Any], tensors: int, where: str) -> None:
    """Refuse the configuration of a network that cannot belong to weights of so many tensors.

    Args:
        config: as read from JSON.
        tensors: in the files of weights beside it.
        where: for the sentence.

    Raises:
        LoadError: a number is out of bounds.
    """
    if "auto_map" in config:
        raise LoadError(f"the configuration of {where} asks for code of its own, which is not run")
    for key, value in _numbers(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise LoadError(f"{shown(key)} in the configuration of {where} is not finite; save it again")
        if abs(value) > MAX_NUMBER:
            raise LoadError(
                f"{shown(key)} in the configuration of {where} is {shown(value)}, far beyond any model; "
                "save it again"
            )
        if value < 1 and (key.endswith("channels") or key == "num_class_embeds"):
            raise LoadError(
                f"{shown(key)} in the configuration of {where} must be positive, got {shown(value)}"
            )
        if ("layers" in key or "blocks" in key) and value > tensors:
            raise LoadError(
                f"{shown(key)} in the configuration of {where} is {shown(value)}, and its weights are only "
                f"{tensors} tensors; the two must come from one model"
            )
    for key, items in config.items():
        if isinstance(items, list) and len(items) > tensors:
            raise LoadError(f"{shown(key)} in the configuration of {where} lists {len(items)} entries")
    _check_side(config, where)


def check_schedule_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a noise schedule of a size that none has.

    Raises:
        LoadError: a number is out of bounds.
    """
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MAX_TIMESTEPS:
        raise LoadError(
            f"num_train_timesteps in the schedule of {where} must be a whole number from 1 to "
            f"{MAX_TIMESTEPS:,}, got {shown(steps)}"
        )
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise LoadError(
            f"prediction_type in the schedule of {where} is {shown(kind)}; known are {', '.join(PREDICTIONS)}"
        )
    betas = config.get("trained_betas")
    if isinstance(betas, list) and len(betas) > MAX_TIMESTEPS:
        raise LoadError(f"trained_betas in the schedule of {where} lists {len(betas)} numbers")


def check_schedule(scheduler: Any, where: str) -> None:
    """Refuse a schedule whose signal shares are no shares.

    Raises:
        LoadError: they are not all from 0 to 1.
    """
    kept = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(kept, torch.Tensor) and not bool(((kept >= 0) & (kept <= 1)).all()):
        raise LoadError(
            f"the schedule of {where} is no noise schedule: the share of the picture that is left must go "
            "from 1 down to 0; save it again"
        )


def check_work(
    network: nn.Module, example: Callable[[nn.Module], Mapping[str, Any]], elements: int, where: str
) -> None:
    """Refuse a network of which one call would take for ever.

    Args:
        network: on the meta device, where nothing is computed.
        example: makes the arguments of one call.
        elements: numbers in its weights.
        where: for the sentence.

    Raises:
        LoadError: it would.
    """
    try:
        with torch.device("meta"):
            macs = _count_macs(network, example(network))
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        return  # what is wrong with it shows when it is built
    limit = max(MIN_MAX_MACS, MAX_MACS_PER_WEIGHT * elements)
    if macs > limit:
        raise LoadError(
            f"one call of {where} would take {macs:.1e} multiplications, far too many for its weights; "
            "look at sample_size in its configuration"
        )


def _count_macs(network: nn.Module, inputs: Mapping[str, Any]) -> int:
    """Multiplications of layers, and of attention as far as its queries tell."""
    total = 0

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(output, torch.Tensor):
            total += output.numel() * int(module.weight[0].numel())

    def attend(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor) and output.ndim == 3:
            total += 2 * output.shape[1] * output.numel()

    handles = [module.register_forward_hook(count) for module in network.modules()]
    queries = [module for name, module in network.named_modules() if name.endswith(".to_q")]
    handles += [module.register_forward_hook(attend) for module in queries]
    try:
        with torch.no_grad():
            network(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _check_side(config: Mapping[str, Any], where: str) -> None:
    sides = [value for key, value in _numbers({"sample_size": config.get("sample_size")})]
    if any(not 1 <= side <= MAX_SIDE for side in sides):
        raise LoadError(
            f"sample_size in the configuration of {where} must be from 1 to {MAX_SIDE}, got {shown(sides[0])}"
        )
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    if type(heads) is int and type(width) is int:
        numbers = max(sides, default=1) ** 2 * abs(heads * width)
        if numbers > MAX_GRID_NUMBERS:
            raise LoadError(
                f"the configuration of {where} asks for a table of {numbers:.1e} numbers; save it again"
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """Every number in a configuration with the key it stands under, lists and objects included."""
    waiting = list(config.items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value
