"""Range search, first version: plain vectorisation."""

from __future__ import annotations

import torch
from torch import Tensor

from mpqdm_core.affine import Grid, QParams, choose_qparams_minmax, fake_quantize
from mpqdm_core.errors import ShapeError


def search_range(
    weight: Tensor, bits: int | Tensor, *, grid: Grid = "affine", exponent: float = 2.4, candidates: int = 80
) -> QParams:
    """One grid per output channel of `weight` (C_out, ...)."""
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    rows = weight.detach().flatten(1)
    return search_range_tensor(rows, bits, grid=grid, exponent=exponent, candidates=candidates)


def search_range_tensor(
    values: Tensor, bits: int | Tensor, *, grid: Grid = "affine", exponent: float = 2.4, candidates: int = 80
) -> QParams:
    """One grid for `values` (n,), or one for each row of (T, n)."""
    full = choose_qparams_minmax(values.amin(dim=-1), values.amax(dim=-1), bits, grid)
    best_scale, best_score = full.scale, torch.full_like(full.scale, torch.inf)
    for index in range(candidates):
        scale = full.scale * (1.0 - 0.01 * index)
        trial = QParams(scale=scale, zero_point=full.zero_point, bits=full.bits, grid=grid)
        score = (values - fake_quantize(values, trial)).abs().pow(exponent).mean(dim=-1)
        best_scale = torch.where(score < best_score, scale, best_scale)
        best_score = torch.minimum(score, best_score)
    return QParams(scale=best_scale, zero_point=full.zero_point, bits=full.bits, grid=grid)
