"""What all eight bit-widths cost at one layer's output, summed over sampled rows of its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mpqdm_core.error_table import BITS
from mpqdm_core.kurtosis import channel_kurtosis
from mpqdm_core.measured_layers import LayerSums
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.weights import fit_weight, round_weight


class LayerErrors:
    """A layer's weight at every bit-width, or that of some of its output channels, and the sums so far."""

    def __init__(self, reference: Tensor, weight: Tensor, groups: int, settings: QuantSettings) -> None:
        """Round the weight at 1 to 8 bits.

        Args:
            reference: (O, ...) at full precision.
            weight: of the same shape, pre-scaled.
            groups: of the convolution.
            settings: grid and range search.
        """
        channels = len(weight)
        self.kurtosis = channel_kurtosis(weight).cpu().numpy()
        stack = weight.expand(len(BITS), *weight.shape).flatten(0, 1)  # (8 * O, ...): one search for all
        bits = torch.tensor(BITS).repeat_interleave(channels)
        params = fit_weight(stack, bits, grid=settings.grid, exponent=settings.range_exponent)
        rounded = round_weight(stack, params).view(len(BITS), *weight.shape)
        self._rounded = _by_group(rounded, groups)  # (g, K, 8 * O/g)
        self._reference = _by_group(reference.unsqueeze(0), groups)  # (g, K, O/g)
        self._error = torch.zeros(len(BITS), channels, dtype=torch.float64)
        self._energy = torch.zeros(channels, dtype=torch.float64)
        self._rows = 0

    def add(self, rows: Tensor, rounded_rows: Tensor) -> None:
        """Take in rows of the layer's input, (g, R, K) as they are and as its input quantizer leaves them."""
        y = torch.bmm(rows, self._reference)  # (g, R, O/g)
        y_rounded = torch.unflatten(torch.bmm(rounded_rows, self._rounded), 2, (len(BITS), -1))
        squared = y_rounded.sub_(y.unsqueeze(2)).square_().sum(dim=1, dtype=torch.float64)  # (g, 8, O/g)
        self._error += squared.movedim(0, 1).flatten(1).cpu()
        self._energy += y.square().sum(dim=1, dtype=torch.float64).flatten().cpu()
        self._rows += rows.shape[1]

    def sums(self) -> LayerSums:
        """What was added up, without the weights that it took."""
        error, energy = self._error.numpy(), self._energy.numpy()
        return LayerSums(error=error, energy=energy, kurtosis=self.kurtosis, rows=self._rows)


def joined_sums(parts: Sequence[LayerSums]) -> LayerSums:
    """Sums of all output channels from those of some at a time, over the same rows."""
    return LayerSums(
        error=np.concatenate([part.error for part in parts], axis=1),
        energy=np.concatenate([part.energy for part in parts]),
        kurtosis=np.concatenate([part.kurtosis for part in parts]),
        rows=parts[0].rows,
    )


def _by_group(weights: Tensor, groups: int) -> Tensor:
    """Bring n weights (n, O, I/g, ...) into the shape of one product for each group: (g, K, n * O/g)."""
    flat = torch.unflatten(weights.flatten(2), 1, (groups, -1))  # (n, g, O/g, K)
    return flat.permute(1, 3, 0, 2).flatten(2).contiguous()
