"""Outlier statistics of the output channels of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mpqdm_core.errors import ShapeError


def channel_kurtosis(weight: Tensor) -> Tensor:
    """Pearson kurtosis of every output channel: a Gaussian channel scores 3, heavier tails score more."""
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    values = weight.detach().flatten(1).double()
    centred = values - values.mean(dim=1, keepdim=True)
    m2 = centred.square().mean(dim=1)
    m4 = centred.pow(4).mean(dim=1)
    return torch.where(m2 == 0, 0.0, m4 / m2.square())
