"""What a network was given while the real pipeline sampled, kept so that it can be given again.

The recorder is a forward pre-hook: it knows nothing about guidance or schedules, so whatever the pipeline
does in deployment (both halves of classifier-free guidance, any scheduler) is what gets recorded.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
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
        timestep = torch.tensor(self.timesteps[slot], device=device)
        conditioning = {name: values[slot, index].to(device) for name, values in self.conditioning.items()}
        return {"sample": self.sample[slot, index].to(device), "timestep": timestep, **conditioning}


class InputRecorder:
    """Listens to a network's calls."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._current: int | None = None
        self._calls: dict[int, list[dict[str, Tensor]]] = {}

    def on_forward(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep one call: the sample, the timestep, and every tensor argument with one entry per sample."""
        bound = inspect.signature(network.forward).bind(*args, **kwargs).arguments
        if not isinstance(bound.get("sample"), Tensor) or "timestep" not in bound:
            raise DataError("the network must be called with `sample` and `timestep`")
        batch = len(bound["sample"])
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
        count = min(len(step["sample"]) for step in joined)
        stacked = {name: torch.stack([step[name][:count] for step in joined]) for name in joined[0]}
        sample = stacked.pop("sample")
        return RecordedInputs(timesteps=tuple(self._calls), sample=sample, conditioning=stacked)


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
