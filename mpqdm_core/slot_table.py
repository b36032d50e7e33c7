"""One optimiser parameter per timestep for the input ranges of all layers.

A layer holds its scales as one vector over timesteps, of which a call uses one entry. Given to an optimiser
as such, the idle entries would move by stale momentum and share one count of steps. Here the vectors of all
layers are the columns of a table whose rows the optimiser sees: a row without a gradient is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError


class SlotTable:
    """Scales and zero-points of L input quantizers over T timesteps, bound to the modules' own memory."""

    def __init__(
        self, quantizers: Sequence[ActivationQuantizer], units: Sequence[float] | None = None
    ) -> None:
        """Move the quantizers' vectors into one table; they keep reading and writing it.

        Args:
            quantizers: of L layers.
            units: (L,) what steps of each one's scales count in, see `count_in_units`; None takes the scales'
                own first values.

        Raises:
            SettingsError: one of them does not quantize.
        """
        pairs = [(quantizer.scale, quantizer.zero_point) for quantizer in quantizers]
        columns: list[Tensor] = [tensor for pair in pairs for tensor in pair if tensor is not None]
        if len(columns) != 2 * len(quantizers) or not columns:
            raise SettingsError("inputs at full precision have no ranges to train")
        with torch.no_grad():
            table = torch.stack([column.detach() for column in columns], dim=1).contiguous()  # (T, 2L)
        self._table = table
        self._units = table.clone()
        if units is not None:
            self._units[:, ::2] = torch.tensor(units, dtype=table.dtype)
        self._units[:, 1::2] = 1.0  # of zero-points one level
        self.rows = [nn.Parameter(row) for row in table]  # share the table's memory
        self._columns = [nn.Parameter(column) for column in table.unbind(dim=1)]
        for number, quantizer in enumerate(quantizers):
            quantizer.scale, quantizer.zero_point = self._columns[2 * number : 2 * number + 2]

    @property
    def columns(self) -> list[nn.Parameter]:
        """The vectors that gradients are taken of: scale and zero-point of each quantizer in turn, (T,)."""
        return self._columns

    def collect(self, slots: Iterable[int]) -> None:
        """Hand the columns' gradients to the rows of the timesteps that were used; the others get none."""
        used = set(slots)
        gradients = torch.stack(
            [torch.zeros_like(c) if c.grad is None else c.grad for c in self._columns], dim=1
        )  # (T, 2L)
        for slot, row in enumerate(self.rows):
            row.grad = gradients[slot] if slot in used else None
        for column in self._columns:
            column.grad = None

    def values(self) -> Tensor:
        """A copy of everything in the table, (T, 2L)."""
        return self._table.clone()

    @torch.no_grad()
    def count_in_units(self, before: Tensor) -> None:
        """Take the step from `before` to now as one in each scale's unit, and in levels.

        An optimiser like Adam moves all numbers about equally far, and a scale of many bits is a short one.
        """
        self._table.copy_(before + (self._table - before) * self._units)

    @torch.no_grad()
    def keep_in_range(self, smallest: Tensor) -> None:
        """Keep scales at least at `smallest` (L,), so that none collapses to or through zero."""
        for row in self.rows:
            scales = row.view(-1, 2)[:, 0]
            torch.maximum(scales, smallest, out=scales)
