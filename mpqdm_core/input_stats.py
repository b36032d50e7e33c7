"""Statistics of what flows into each layer, by timestep, without ever holding the activations.

Per layer and timestep: the range and mean square of every input channel over all that was seen, and a bounded
random sample of rows, which is what the search for an activation range needs. Statistics are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerInputStats:
    """Input statistics of one layer; T timesteps, C_in channels, R sampled rows."""

    channel_min: Tensor  # (T, C_in)
    channel_max: Tensor  # (T, C_in)
    mean_square: Tensor  # (T, C_in)
    rows: Tensor  # (T, R, C_in): inputs at random places of random samples

    @property
    def absmax(self) -> Tensor:
        """(T, C_in) largest magnitude."""
        return torch.maximum(self.channel_max.abs(), self.channel_min.abs())

    @property
    def low(self) -> Tensor:
        """(T,) smallest value over all channels."""
        return self.channel_min.amin(dim=1)

    @property
    def high(self) -> Tensor:
        """(T,) largest value over all channels."""
        return self.channel_max.amax(dim=1)


class _Running:
    """One layer at one timestep."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self.square_sum: Tensor | None = None
        self.count = 0
        self.rows: list[Tensor] = []

    def add(self, x: Tensor, rows: Tensor) -> None:
        """Take in (n, C) values, of which `rows` (r, C) are kept."""
        low, high = x.amin(dim=0), x.amax(dim=0)
        square_sum = x.square().sum(dim=0, dtype=torch.float64)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.square_sum = square_sum if self.square_sum is None else self.square_sum + square_sum
        self.count += len(x)
        self.rows.append(rows)


class StatsCollector:
    """Pre-hooks on layers that stream their inputs into bounded statistics."""

    def __init__(
        self, *, rows_per_call: int, rows_per_step: int, seed: int, timestep: Callable[[], int]
    ) -> None:
        """Keep at most `rows_per_call` rows of a call and `rows_per_step` of a timestep.

        Args:
            rows_per_call: rows sampled from one call of a layer.
            rows_per_step: rows kept for one timestep in the end.
            seed: of the choice of rows.
            timestep: says the timestep of the call that runs.
        """
        self._rows_per_call = rows_per_call
        self._rows_per_step = rows_per_step
        self._generator = torch.Generator().manual_seed(seed)
        self._timestep = timestep
        self._running: dict[str, dict[int, _Running]] = {}

    def watch(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """Return a pre-hook for the layer `name`."""
        by_step = self._running.setdefault(name, {})

        def on_forward(module: nn.Module, args: tuple[Any, ...]) -> None:
            timestep = self._timestep()
            x = channel_rows(args[0].detach(), module)  # (n, C)
            if not bool(
                torch.isfinite(x.sum(dtype=torch.float64))
            ):  # one pass; overflow of a float64 sum is no concern
                raise DataError(
                    f"the input of layer {name} at timestep {timestep} holds NaN or infinite values"
                )
            picked = torch.randint(len(x), (min(self._rows_per_call, len(x)),), generator=self._generator)
            by_step.setdefault(timestep, _Running()).add(x, x[picked.to(x.device)].float().cpu())

        return on_forward

    def state_dict(self) -> dict[str, Any]:
        """Everything seen so far, and where the choice of rows stands."""
        layers = {
            name: {timestep: vars(running) for timestep, running in by_step.items()}
            for name, by_step in self._running.items()
        }
        return {"layers": layers, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same layers, which are watched already."""
        for name, by_step in state["layers"].items():
            for timestep, values in by_step.items():
                running = self._running[name].setdefault(timestep, _Running())
                vars(running).update(values)
        self._generator.set_state(state["generator"])

    def finish(self, timesteps: Iterable[int]) -> Mapping[str, LayerInputStats]:
        """Return the statistics of every watched layer, slots in the order of `timesteps`.

        Raises:
            DataError: a layer did not run at some timestep.
        """
        order = tuple(timesteps)
        return {name: self._layer(name, by_step, order) for name, by_step in self._running.items()}

    def _layer(self, name: str, by_step: dict[int, _Running], order: tuple[int, ...]) -> LayerInputStats:
        missing = [timestep for timestep in order if timestep not in by_step]
        if missing:
            raise DataError(f"layer {name} never ran at timestep {missing[0]}, so it cannot be calibrated")
        steps = [by_step[timestep] for timestep in order]
        joined = [torch.cat(step.rows) for step in steps]
        count = min(self._rows_per_step, *(len(rows) for rows in joined))
        rows = [rows[torch.randperm(len(rows), generator=self._generator)[:count]] for rows in joined]
        return LayerInputStats(
            channel_min=_stack(step.low for step in steps),
            channel_max=_stack(step.high for step in steps),
            mean_square=_stack(None if s.square_sum is None else s.square_sum / s.count for s in steps),
            rows=torch.stack(rows),
        )


def _stack(values: Iterable[Tensor | None]) -> Tensor:
    return torch.stack([value.float().cpu() for value in values if value is not None])


def channel_rows(x: Tensor, layer: nn.Module) -> Tensor:
    """Return a layer's input as (n, C_in): (B, C, H, W) of a convolution or (..., C) of a linear layer."""
    if isinstance(layer, nn.Conv2d):
        return x.movedim(1, -1).reshape(-1, x.shape[1])
    return x.reshape(-1, x.shape[-1])
