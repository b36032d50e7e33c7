"""The input side of a quantized layer: pre-scaling and one activation range per timestep.

Ranges are keyed by the timestep's value, which a hook reads from the network's own argument: an aborted run,
another number of steps or a batch without its unconditional half cannot shift them. Activations use the
affine grid with a whole zero-point at every bit-width, because SiLU outputs are one-sided and zero padding
must stay exactly zero.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.timesteps import nearest_timestep, timestep_units
from mpqdm_core.timesteps import timestep_value as timestep_value

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
    def slot(self) -> int:
        """Slot of the call that runs in this thread.

        Raises:
            SettingsError: no timestep was set yet.
        """
        slot: int | None = getattr(self._local, "slot", None)
        if slot is None:
            raise SettingsError("no timestep is set: call the network, or set one with TimestepClock.set")
        return slot

    def set(self, timestep: Any, units: float = 1.0) -> None:
        """Move to the slot of `timestep`, or to the nearest one; O(1) for every value seen before.

        Args:
            timestep: as a network is given it.
            units: of that network, see `timesteps.timestep_units`.
        """
        value = timestep_value(timestep, units)
        slot = self._slots.get(value)
        if slot is None:
            slot = nearest_timestep(value, self.timesteps)
            self._slots[value] = slot  # so that it is searched, and said, once
            logger.warning(
                "no activation range for timestep %d: using that of %d", value, self.timesteps[slot]
            )
        self._local.slot = slot

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


class _FakeQuantizeInput(torch.autograd.Function):
    """s * clamp(round(x * m), -z, n - z) for m = prescale / s; keeps x only and counts levels again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, multiplier: Tensor, levels: int
    ) -> Tensor:
        """Quantize and dequantize."""
        ctx.save_for_backward(x, scale, zero_point, multiplier)
        ctx.levels = levels
        steps = x.mul(multiplier).round_()
        return steps.clamp_(-zero_point, levels - zero_point).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Straight-through inside the range, edges outside."""
        x, scale, zero_point, multiplier = ctx.saved_tensors
        ratio = x * multiplier
        level = ratio.round()
        edge = level.clamp(-zero_point, ctx.levels - zero_point)
        inside = level == edge
        grad_x = grad_scale = grad_zero = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad * inside).mul_(multiplier * scale)
        if ctx.needs_input_grad[1]:
            slope = torch.addcmul(edge, ratio, inside.to(ratio.dtype), value=-1.0)
            grad_scale = torch.dot(grad.reshape(-1), slope.reshape(-1)).reshape(scale.shape)
        if ctx.needs_input_grad[2]:
            outside = grad.masked_fill(inside, 0.0).sum()
            grad_zero = (-scale * outside).reshape(zero_point.shape)
        return grad_x, grad_scale, grad_zero, None, None


class ActivationQuantizer(nn.Module):
    """Computes Q(x * prescale) with the running timestep's scale and zero-point, per tensor.

    x_hat = s * clamp(round(x * prescale / s), -z, n - z) with n = 2**bits - 1: the affine grid with its zero-
    point folded into the limits. Four in-place passes without gradients; the same values with them (straight-
    through rounding; gradients reach x, the scale and the zero-point).
    """

    scale: Tensor | None
    zero_point: Tensor | None
    prescale: Tensor | None
    _multiplier: Tensor | None

    def __init__(
        self,
        *,
        channel_axis: int,
        prescale: Tensor | None = None,
        bits: int | None = None,
        scale: Tensor | None = None,
        zero_point: Tensor | None = None,
        clock: TimestepClock | None = None,
    ) -> None:
        """Quantize to `bits` per value, or only pre-scale when `bits` is None.

        Args:
            channel_axis: 1 for a convolution's (B, C, H, W), -1 for a linear layer's (..., C).
            prescale: (C_in,) factors the input is multiplied with; None for none.
            bits: 1 to 16, or None for full precision.
            scale: (T,) step between levels, one per timestep of `clock`.
            zero_point: (T,) level of zero, within [0, n].
            clock: says which timestep runs.

        Raises:
            SettingsError: `bits` without its tables, or outside 1..16.
            ShapeError: the tables do not have one entry per timestep.
        """
        super().__init__()
        if channel_axis not in (1, -1):
            raise SettingsError(f"channel_axis must be 1 or -1, got {channel_axis}")
        self.channel_axis = channel_axis
        self.bits = bits
        self.clock = clock
        self.register_buffer("prescale", prescale)
        self.register_buffer("_multiplier", None, persistent=False)
        self._limits: list[tuple[float, float, float]] | None = None
        if bits is None:
            self.scale = self.zero_point = None
            return
        if scale is None or zero_point is None or clock is None or not 1 <= bits <= 16:
            raise SettingsError(
                f"activation bits must be in 1..16 with scale, zero-point and clock, got {bits}"
            )
        if scale.shape != (len(clock.timesteps),) or zero_point.shape != scale.shape:
            raise ShapeError(
                f"expected one scale and zero-point for each of {len(clock.timesteps)} timesteps, "
                f"got {tuple(scale.shape)} and {tuple(zero_point.shape)}"
            )
        self.scale = nn.Parameter(scale.detach().clone(), requires_grad=False)
        self.zero_point = nn.Parameter(zero_point.detach().to(scale.dtype).clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pre-scaled, fake-quantized input, of the shape of `x`."""
        if self.scale is None or self.zero_point is None or self.clock is None or self.bits is None:
            return x if self.prescale is None else x * self._shaped(self.prescale)
        if torch.is_autocast_enabled(x.device.type):  # bfloat16 cannot tell steps of 8 bits apart
            x = x.float()
        if torch.is_grad_enabled():
            slot = self.clock.slot
            return self._differentiable(x, self.scale[slot], self.zero_point[slot])
        steps, _, scale = self.steps(x)
        return steps.mul_(scale)

    def steps(self, x: Tensor) -> tuple[Tensor, float, float]:
        """Round an input to whole steps from zero; gradients do not pass.

        Returns:
            the steps, of the shape of `x`; the fewest there may be, -zero-point; and the size of a step.

        Raises:
            SettingsError: inputs are at full precision.
        """
        if self.scale is None or self.clock is None:
            raise SettingsError("this layer's activations are at full precision: there are no steps")
        slot = self.clock.slot
        if self._limits is None or self._multiplier is None:
            multiplier = self._multipliers(self.scale[slot : slot + 1])[0]
            low, high, scale = self._limits_of(slot)
        else:
            multiplier = self._multiplier[slot]
            low, high, scale = self._limits[slot]
        return x.mul(multiplier).round_().clamp_(low, high), low, scale

    def inside(self, x: Tensor) -> Tensor:
        """Which values of an input are within the running timestep's range: bool, of the shape of `x`.

        Raises:
            SettingsError: inputs are at full precision.
        """
        if self.scale is None or self.clock is None:
            raise SettingsError("this layer's activations are at full precision: there are no limits")
        slot = self.clock.slot
        low, high, _ = self._limits_of(slot)
        with torch.no_grad():
            codes = (x * self._multipliers(self.scale[slot : slot + 1])[0]).round_()
            return (codes >= low) & (codes <= high)

    def freeze_(self) -> None:
        """Compute the tables of every timestep once; the output stays the same, bit for bit."""
        if self.scale is None:
            return
        with torch.no_grad():
            self._multiplier = self._multipliers(self.scale)
            self._limits = [self._limits_of(slot) for slot in range(len(self.scale))]

    def _differentiable(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        levels = 2 ** (self.bits or 0) - 1
        multiplier = self._multipliers(scale.detach().reshape(1))[0]
        result: Tensor = _FakeQuantizeInput.apply(x, scale, zero_point, multiplier, levels)  # type: ignore[no-untyped-call]
        return result

    def _multipliers(self, scale: Tensor) -> Tensor:
        """Return prescale / scale by timestep, to broadcast over an input: (T, C or 1[, 1, 1])."""
        prescale = scale.new_ones(1) if self.prescale is None else self.prescale
        table = prescale / scale.unsqueeze(1)  # (T, C or 1)
        return table[..., None, None] if self.channel_axis == 1 else table

    def _limits_of(self, slot: int) -> tuple[float, float, float]:
        if self.scale is None or self.zero_point is None or self.bits is None:
            raise SettingsError("this layer's activations are at full precision: there are no limits")
        zero_point, scale = float(self.zero_point[slot].detach()), float(self.scale[slot].detach())
        return -zero_point, 2**self.bits - 1 - zero_point, scale

    def _shaped(self, factors: Tensor) -> Tensor:
        return factors[:, None, None] if self.channel_axis == 1 else factors
