"""What a network was given while the real pipeline sampled, kept so that it can be given again.

The recorder is a forward pre-hook: it knows nothing about guidance or schedules, so whatever the pipeline
does in deployment (both halves of classifier-free guidance, any scheduler) is what gets recorded.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.network_calls import call_arguments, flat
from mpqdm_core.timesteps import given_timestep, timestep_units, timestep_value

SHARED = frozenset({"img_ids", "txt_ids"})  # places of tokens: one table for all samples, of any length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedInputs:
    """Every call of a network during sampling, by timestep."""

    timesteps: tuple[int, ...]  # (T,) in the order they were visited; whole, on the scale of training
    sample: Tensor  # (T, N, ...) float: x_t going in, both halves of guidance included
    conditioning: dict[str, Tensor] = field(default_factory=dict)  # name -> (T, N, ...), e.g. class_labels
    sample_name: str = "sample"  # the network's first argument: "hidden_states" in transformers
    timestep_by_sample: bool = False  # whether the pipeline repeats the timestep for every sample
    timestep_values: tuple[float, ...] = ()  # (T,) as the network was given them; empty: `timesteps`
    shared: dict[str, Tensor] = field(default_factory=dict)  # name -> what all samples have in common

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
        chosen = {name: values[slot, index].to(device) for name, values in self.conditioning.items()}
        sample = self.sample[slot, index].to(device)
        return call_arguments(self, slot, sample, chosen)


def written_conditioning(conditioning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By name in a file: (1, ...) instead of (T, ...) where every step has the same, as prompts have."""
    return {
        f"conditioning/{name}": values[:1] if (values == values[:1]).all() else values
        for name, values in conditioning.items()
    }


def read_conditioning(tensors: Mapping[str, Tensor], names: Iterable[str], steps: int) -> dict[str, Tensor]:
    """What `written_conditioning` was given, from the tensors of a file; repeats take no memory."""
    found = {name: tensors[f"conditioning/{name}"] for name in names}
    return {name: values.expand(steps, *values.shape[1:]) for name, values in found.items()}


class InputRecorder:
    """Listens to a network's calls."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._current: int | None = None
        self._sample_name = "sample"
        self._timestep_by_sample = False
        self._values: dict[int, int | float] = {}
        self._shared: dict[str, Tensor] = {}
        self._calls: dict[int, list[dict[str, Tensor]]] = {}
        self._notes: dict[int, list[dict[str, Tensor]]] = {}

    def on_forward(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep one call: the sample, the timestep, and every tensor argument."""
        signature = inspect.signature(network.forward)
        bound = flat(signature.bind(*args, **kwargs).arguments)
        first = next(iter(signature.parameters))
        if not isinstance(bound.get(first), Tensor) or "timestep" not in bound:
            raise DataError(f"the network must be called with `{first}` and `timestep`")
        given = bound.pop("timestep")
        self._sample_name = first
        self._timestep_by_sample = getattr(given, "ndim", 0) > 0
        self._current = timestep_value(given, timestep_units(network))
        self._values.setdefault(self._current, given_timestep(given))
        tensors = {name: value.detach() for name, value in bound.items() if isinstance(value, Tensor)}
        batch = len(tensors[first])
        own = {
            name
            for name, value in tensors.items()
            if value.ndim and len(value) == batch and name not in SHARED
        }
        kept = {name: tensors[name].cpu().clone() for name in tensors if name in own}
        self._keep_shared({name: value for name, value in tensors.items() if name not in own})
        self._calls.setdefault(self._current, []).append(kept)
        self._notes.setdefault(self._current, []).append({})

    def note(self, name: str, value: Tensor) -> None:
        """Keep something beside the call that runs: its prediction, a feature."""
        self._notes[self.timestep()][-1][name] = value.detach().float().cpu().clone()

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
        stacked = stacked_calls(self._calls)
        sample = stacked.pop(self._sample_name)
        whole = all(isinstance(value, int) for value in self._values.values())
        return RecordedInputs(
            timesteps=tuple(self._calls),
            sample=sample,
            conditioning=stacked,
            sample_name=self._sample_name,
            timestep_by_sample=self._timestep_by_sample,
            timestep_values=() if whole else tuple(float(value) for value in self._values.values()),
            shared=self._shared,
        )

    def notes(self) -> dict[str, Tensor]:
        """What was noted beside the calls, in their order: (T, N, ...) by name."""
        return stacked_calls(self._notes)

    def _keep_shared(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            kept = self._shared.setdefault(name, value.cpu().clone())
            if kept.shape != value.shape or not torch.equal(kept, value.cpu()):
                raise DataError(f"`{name}` is another one in every call but belongs to no sample")


def stacked_calls(calls: Mapping[int, list[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Tensors (T, N, ...) by name, of the calls at each timestep.

    PNDM comes to one timestep twice: of what is visited more often than the others, the first visit counts.
    What does not change from timestep to timestep is held once.
    """
    fewest = min(len(made) for made in calls.values())
    thinned = [made[:: len(made) // fewest] for made in calls.values()]
    result = {}
    for name in thinned[0][0]:
        steps = [torch.cat([call[name] for call in made]) for made in thinned]
        count = min(len(step) for step in steps)
        steps = [step[:count] for step in steps]
        same = all(step.shape == steps[0].shape and torch.equal(step, steps[0]) for step in steps[1:])
        result[name] = steps[0].expand(len(steps), *steps[0].shape) if same else torch.stack(steps)
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
