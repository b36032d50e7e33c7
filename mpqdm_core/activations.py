"""The input side of a quantized layer: pre-scaling and one activation range per timestep.

Which range holds is told by a `TimestepClock`. Activations use the affine grid with a whole zero-point at
every bit-width, because SiLU outputs are one-sided and zero padding must stay exactly zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.rounded_inputs import rounded_input
from mpqdm_core.timestep_clock import TimestepClock


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
        rows = self.clock.rows
        if torch.is_grad_enabled() or rows is not None:
            where = self.clock.slot if rows is None else _spread_over(rows, len(x))
            return self._differentiable(x, self.scale[where], self.zero_point[where])
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
        if self.scale is None or self.zero_point is None or self.clock is None or self.bits is None:
            raise SettingsError("this layer's activations are at full precision: there are no limits")
        rows = self.clock.rows
        where = torch.tensor([self.clock.slot]) if rows is None else _spread_over(rows, len(x))
        with torch.no_grad():
            zero_point = _broadcast(self.zero_point[where], x)
            codes = (x * self._multipliers_for(self.scale[where], x)).round_()
            inside: Tensor = (codes >= -zero_point) & (codes <= 2**self.bits - 1 - zero_point)
            return inside

    def freeze_(self) -> None:
        """Compute the tables of every timestep once; the output stays the same, bit for bit."""
        if self.scale is None:
            return
        with torch.no_grad():
            self._multiplier = self._multipliers(self.scale)
            self._limits = [self._limits_of(slot) for slot in range(len(self.scale))]

    def _differentiable(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        levels = 2 ** (self.bits or 0) - 1
        multiplier = self._multipliers_for(scale.detach().reshape(-1), x)
        scale, zero_point = _broadcast(scale, x), _broadcast(zero_point, x)
        return rounded_input(x, scale, zero_point, multiplier, levels)

    def _multipliers(self, scale: Tensor) -> Tensor:
        """Return prescale / scale by timestep, to broadcast over an input: (T, C or 1[, 1, 1])."""
        prescale = scale.new_ones(1) if self.prescale is None else self.prescale
        table = prescale / scale.unsqueeze(1)  # (T, C or 1)
        return table[..., None, None] if self.channel_axis == 1 else table

    def _multipliers_for(self, scale: Tensor, x: Tensor) -> Tensor:
        """Return prescale / scale of one timestep, (1,), or of one a sample, (B,), to broadcast over x."""
        table = self._multipliers(scale)
        if len(scale) > 1 and self.channel_axis == -1:
            table = table.view(len(scale), *[1] * (x.ndim - 2), -1)
        return table if len(scale) > 1 else table[0]

    def _limits_of(self, slot: int) -> tuple[float, float, float]:
        if self.scale is None or self.zero_point is None or self.bits is None:
            raise SettingsError("this layer's activations are at full precision: there are no limits")
        zero_point, scale = float(self.zero_point[slot].detach()), float(self.scale[slot].detach())
        return -zero_point, 2**self.bits - 1 - zero_point, scale

    def _shaped(self, factors: Tensor) -> Tensor:
        return factors[:, None, None] if self.channel_axis == 1 else factors


def _broadcast(values: Tensor, x: Tensor) -> Tensor:
    """One number as it is; one a sample, (B,) -> (B, 1, ...)."""
    return values if values.numel() == 1 else values.view(-1, *[1] * (x.ndim - 1))


def _spread_over(rows: Tensor, count: int) -> Tensor:
    """(count,) the slot of every row of an input; a sample may have several, one after the other.

    Raises:
        ShapeError: they do not divide evenly.
    """
    if count % len(rows):
        raise ShapeError(f"an input of {count} rows does not belong to {len(rows)} samples evenly")
    return rows if count == len(rows) else rows.repeat_interleave(count // len(rows))
