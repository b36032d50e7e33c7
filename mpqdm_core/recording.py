"""What a network was given while the real pipeline sampled, kept so that it can be given again.

The recorder is a forward pre-hook: it knows nothing about guidance or schedules, so whatever the pipeline
does in deployment (both halves of classifier-free guidance, any scheduler) is what gets recorded.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mpqdm_core.activations import timestep_value
from mpqdm_core.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedInputs:
    """Every call of a network during sampling, by timestep."""

    timesteps: tuple[int, ...]  # (T,) in the order they were visited
    sample: Tensor  # (T, N, ...) float: x_t going in, both halves of guidance included
    conditioning: dict[str, Tensor] = field(default_factory=dict)  # name -> (T, N, ...), e.g. class_labels
    sample_name: str = "sample"  # the network's first argument: "hidden_states" in transformers
    timestep_by_sample: bool = False  # whether the pipeline repeats the timestep for every sample

    @property
    def samples_per_step(self) -> int:
        """N: how many inputs each timestep has."""
        return int(self.sample.shape[1])

    def arguments(self, slot: int, index: Tensor, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Return keyword arguments that repeat the chosen inputs of one timestep.

        Args:
            slot: which timestep, 0..T-1.
            index: (n,) which of its N inputs.
            device: where the network lives.
        """
        shape = (len(index),) if self.timestep_by_sample else ()
        timestep = torch.full(shape, self.timesteps[slot], device=device)
        conditioning = {name: values[slot, index].to(device) for name, values in self.conditioning.items()}
        sample = {self.sample_name: self.sample[slot, index].to(device)}
        return nested({**sample, "timestep": timestep, **conditioning})


class InputRecorder:
    """Listens to a network's calls."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._current: int | None = None
        self._sample_name = "sample"
        self._timestep_by_sample = False
        self._calls: dict[int, list[dict[str, Tensor]]] = {}

    def on_forward(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep one call: the sample, the timestep, and every tensor argument with one entry per sample."""
        signature = inspect.signature(network.forward)
        bound = flat(signature.bind(*args, **kwargs).arguments)
        first = next(iter(signature.parameters))
        if not isinstance(bound.get(first), Tensor) or "timestep" not in bound:
            raise DataError(f"the network must be called with `{first}` and `timestep`")
        batch = len(bound[first])
        self._sample_name = first
        self._timestep_by_sample = getattr(bound["timestep"], "ndim", 0) > 0
        self._current = timestep_value(bound["timestep"])
        kept = {
            name: value.detach().cpu().clone()
            for name, value in bound.items()
            if isinstance(value, Tensor) and name != "timestep" and value.ndim > 0 and len(value) == batch
        }
        self._calls.setdefault(self._current, []).append(kept)

    def timestep(self) -> int:
        """Return the timestep of the call that runs.

        Raises:
            DataError: the network was not called yet.
        """
        if self._current is None:
            raise DataError("a layer ran outside of its network: its timestep is unknown")
        return self._current

    def finish(self) -> RecordedInputs:
        """Put the calls together.

        Raises:
            DataError: nothing was recorded.
        """
        if not self._calls:
            raise DataError("the pipeline never called its network: nothing was recorded")
        joined = [
            {name: torch.cat([call[name] for call in calls]) for name in calls[0]}
            for calls in self._calls.values()
        ]
        count = min(len(step[self._sample_name]) for step in joined)
        stacked = {name: torch.stack([step[name][:count] for step in joined]) for name in joined[0]}
        sample = stacked.pop(self._sample_name)
        return RecordedInputs(
            timesteps=tuple(self._calls),
            sample=sample,
            conditioning=stacked,
            sample_name=self._sample_name,
            timestep_by_sample=self._timestep_by_sample,
        )


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, those inside dictionaries as "name.key": `added_cond_kwargs.text_embeds`."""
    result: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            result |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            result[name] = value
    return result


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flat`."""
    result: dict[str, Any] = {}
    for name, value in arguments.items():
        outer, dot, inner = name.partition(".")
        if dot:
            result.setdefault(outer, {})[inner] = value
        else:
            result[name] = value
    return result


@contextmanager
def hooks(*handles: RemovableHandle) -> Iterator[list[RemovableHandle]]:
    """Remove every hook on the way out, whatever happened inside; more may be appended meanwhile."""
    held = list(handles)
    try:
        yield held
    finally:
        for handle in held:
            handle.remove()


def output_tensor(output: Any) -> Tensor:
    """Return a network's prediction, whether it comes as a tensor, a tuple or a diffusers output."""
    if isinstance(output, Tensor):
        return output
    first = output[0]
    if not isinstance(first, Tensor):
        raise DataError(f"expected the network to return a tensor, got {type(first).__name__}")
    return first


def feature_map(output: Any) -> Tensor:
    """A tapped module's output as a map (N, C, h, w): tokens (N, h * w, C) become a square, or a row."""
    feature = output_tensor(output)
    if feature.ndim != 3:
        return feature
    count, tokens, channels = feature.shape
    side = math.isqrt(tokens)
    height = side if side * side == tokens else 1
    return feature.transpose(1, 2).reshape(count, channels, height, tokens // height)


def spread(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Draw `wanted` distinct indices below `count`, or all of them; (n,) int64, ascending."""
    if wanted >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:wanted].sort().values


def replica(network: nn.Module) -> nn.Module:
    """Copy a network's modules but none of its weights, so that hooks on the copy are its own.

    Whoever samples the original meanwhile is not heard, and an interrupted measurement leaves nothing on it.
    The weights are shared: never train, move or cast a replica.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn running out of memory into one sentence that ends in `advice`.

    Raises:
        SettingsError: memory ran out inside.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as err:
        raise SettingsError(f"there is not enough memory: {advice}") from err
    except RuntimeError as err:  # what the CPU allocator raises has no type of its own
        if "allocate memory" not in str(err):
            raise
        raise SettingsError(f"there is not enough memory: {advice}") from err
