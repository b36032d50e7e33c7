"""Keyword arguments of a network's calls: repeated from recordings, joined into one, flat or nested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class CallForm(Protocol):
    """How a network was called, beside what belongs to each sample."""

    @property
    def timesteps(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def timestep_values(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def timestep_by_sample(self) -> bool: ...  # noqa: D102
    @property
    def sample_name(self) -> str: ...  # noqa: D102
    @property
    def shared(self) -> dict[str, Tensor]: ...  # noqa: D102


def call_arguments(
    form: CallForm, slot: int, sample: Tensor, conditioning: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Keyword arguments of a call at one timestep.

    Args:
        form: of the recorded calls.
        slot: which timestep, 0..T-1.
        sample: (n, ...) the network's first argument.
        conditioning: name -> (n, ...).
    """
    shape = (len(sample),) if form.timestep_by_sample else ()
    value = form.timestep_values[slot] if form.timestep_values else form.timesteps[slot]
    timestep = torch.full(shape, value, device=sample.device)
    shared = {name: values.to(sample.device) for name, values in form.shared.items()}
    return nested({form.sample_name: sample, "timestep": timestep, **shared, **conditioning})


def joined_calls(form: CallForm, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keyword arguments of one call in place of several at different timesteps; rows follow each other."""
    flattened = [flat(call) for call in calls]
    together: dict[str, Any] = {}
    for name, first in flattened[0].items():
        values = [call[name] for call in flattened]
        if name == "timestep":
            values = [
                value.expand(len(call[form.sample_name])) for value, call in zip(values, calls, strict=True)
            ]
        together[name] = first if name in form.shared else torch.cat(values)
    return nested(together)


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
