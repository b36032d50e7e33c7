"""Which timestep a running network call belongs to.

Ranges are keyed by the timestep's value, which a hook reads from the network's own argument: an aborted run,
another number of steps or a batch without its unconditional half cannot shift them.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.timesteps import nearest_timestep, timestep_units, timestep_value

logger = logging.getLogger(__name__)


def _timestep_position(network_class: type[nn.Module]) -> int | None:
    """Where a network takes its timestep among the positional arguments; None where it takes none."""
    names = list(inspect.signature(network_class.forward).parameters)[1:]  # without self
    return names.index("timestep") if "timestep" in names else None


class TimestepClock:
    """Knows which slot of the temporal tables the running call belongs to, in each thread for itself."""

    def __init__(self, timesteps: Sequence[int]) -> None:
        """Make one slot per timestep.

        Args:
            timesteps: (T,) distinct values, in any order; slot i belongs to timesteps[i].

        Raises:
            SettingsError: no timestep, or one twice.
        """
        if len(timesteps) == 0 or len(set(timesteps)) != len(timesteps):
            raise SettingsError(f"timesteps must be distinct and at least one, got {list(timesteps)}")
        self.timesteps = tuple(int(value) for value in timesteps)
        self._slots = {value: slot for slot, value in enumerate(self.timesteps)}
        self._local = threading.local()

    @property
    def rows(self) -> Tensor | None:
        """(B,) the slots of the samples of this thread's call; None where all are at one timestep."""
        rows: Tensor | None = getattr(self._local, "rows", None)
        return rows

    @property
    def slot(self) -> int:
        """Slot of the call that runs in this thread.

        Raises:
            DataError: its samples are at different timesteps.
            SettingsError: no timestep was set yet.
        """
        if self.rows is not None:
            raise DataError("this network takes one timestep per call, got several different ones")
        slot: int | None = getattr(self._local, "slot", None)
        if slot is None:
            raise SettingsError("no timestep is set: call the network, or set one with TimestepClock.set")
        return slot

    def set(self, timestep: Any, units: float = 1.0, *, by_sample: bool = False) -> None:
        """Move to the slot of `timestep`, or to the nearest one; O(1) for every value seen before.

        Args:
            timestep: as a network is given it; a tensor may have another value for each sample.
            units: of that network, see `timesteps.timestep_units`.
            by_sample: keep a slot for each sample even if all are alike: of a tensor (B,).
        """
        self._local.rows = None
        many = isinstance(timestep, Tensor) and timestep.numel() > 1
        if by_sample or (many and bool((timestep != timestep[0]).any())):
            slots = [self._slot_of(timestep_value(value, units)) for value in timestep.tolist()]
            self._local.rows = torch.tensor(slots, device=timestep.device)
        else:
            self._local.slot = self._slot_of(timestep_value(timestep, units))

    def _slot_of(self, value: int) -> int:
        slot = self._slots.get(value)
        if slot is None:
            slot = nearest_timestep(value, self.timesteps)
            self._slots[value] = slot  # so that it is searched, and said, once
            logger.warning(
                "no activation range for timestep %d: using that of %d", value, self.timesteps[slot]
            )
        return slot

    def on_forward(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the timestep of a network call; meant as a forward pre-hook with keyword arguments."""
        timestep = kwargs.get("timestep")
        if timestep is None:
            place = _timestep_position(type(network))
            if place is None or place >= len(args):
                raise SettingsError("the network was called without a timestep")
            timestep = args[place]
        self.set(timestep, timestep_units(network))

    def attach(self, network: nn.Module) -> RemovableHandle:
        """Follow the calls of `network` from now on."""
        return network.register_forward_pre_hook(self.on_forward, with_kwargs=True)

    def __getstate__(self) -> dict[str, Any]:
        # A thread's own state neither pickles nor should travel; hooks are bound methods and follow the copy.
        return {"timesteps": self.timesteps, "_slots": dict(self._slots)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()
