"""Timesteps as keys: whole numbers on the scale of training, whatever a network or a schedule counts in.

Everything that belongs to a timestep (activation ranges, recorded inputs, an adapter's scales) is found by
this number. U-Nets and most transformers are given it as it is, Flux a fraction of it. A schedule that visits
other timesteps than those that something was made for uses the nearest, and `mapping_note` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mpqdm_core.errors import DataError

WHOLE, FRACTION = 1.0, 1000.0  # timesteps of training per unit of what the network is given
FRACTIONAL_NETWORKS = frozenset({"ChromaTransformer2DModel", "FluxTransformer2DModel"})
"""Networks that take the timestep over 1000."""


def timestep_units(network: nn.Module) -> float:
    """Timesteps of training per unit of what a network is given."""
    return FRACTION if type(network).__name__ in FRACTIONAL_NETWORKS else WHOLE


def given_timestep(timestep: Any) -> int | float:
    """Return the one timestep of a network call, as it was given.

    Args:
        timestep: a number, or a tensor with any number of equal entries.

    Raises:
        DataError: the samples of the call are at different timesteps.
    """
    if not isinstance(timestep, Tensor):
        return timestep if isinstance(timestep, int) else float(timestep)
    values = timestep.detach().flatten()
    if values.numel() > 1 and bool((values != values[0]).any()):
        raise DataError("a quantized network takes one timestep per call, got several different ones")
    value: int | float = values[0].item()
    return value


def timestep_value(timestep: Any, units: float = WHOLE) -> int:
    """Return the key of a network call's timestep.

    Args:
        timestep: as `given_timestep` takes it.
        units: of the network, from `timestep_units`.

    Raises:
        DataError: the samples of the call are at different timesteps.
    """
    return round(float(given_timestep(timestep)) * units)


def nearest_timestep(timestep: int, known: Sequence[int]) -> int:
    """The place of the nearest of `known`; of two equally near ones, the first."""
    return min(range(len(known)), key=lambda place: abs(known[place] - timestep))


def mapping_note(known: Sequence[int], visited: Sequence[int]) -> str:
    """One sentence on the timesteps that ranges have to be borrowed for; "" if there are none.

    Args:
        known: that ranges were made for.
        visited: by the schedule that draws.
    """
    borrowed = [step for step in dict.fromkeys(visited) if step not in set(known)]
    if not borrowed or not known:
        return ""
    nearest = {step: known[nearest_timestep(step, known)] for step in borrowed}
    farthest = max(borrowed, key=lambda step: abs(nearest[step] - step))
    return (
        f"{len(borrowed)} of {len(set(visited))} timesteps have no activation ranges of their own and use "
        f"those of the nearest one that has; the farthest is {farthest}, which uses {nearest[farthest]}'s."
    )
