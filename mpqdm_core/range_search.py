"""Which share of a channel's range its levels should cover: a search over shrink factors, fast on a CPU.

The plain search tries every candidate on every value: 80 passes and 80 powers a value. Here each row is first
described by a histogram so fine that one matrix product estimates the scores of all candidates; only the few
that may still win are scored exactly. Where a histogram would cost more than it saves (many levels, short
rows), candidates are dropped by what clipping the largest values alone must cost, which loses no winner. The
result is that of the plain search up to ties within float32 rounding. Float32 inside.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mpqdm_core.affine import SMALLEST_SCALE, Grid, QParams, choose_qparams_minmax
from mpqdm_core.errors import SettingsError, ShapeError

ROUNDING = 1.5 * 2.0**23  # adding it to a float32 below 2**22 leaves no digits after the point
SHRINK_STEP = 0.01  # neighbouring candidates differ by this share of the full range
MAX_CANDIDATES = 100
BLOCK_VALUES = 32_767  # stays in the cache; torch splits larger work, and waiting for threads costs more here
# For 1..8 bits: points of the histogram for each level, and how far above the best estimate a candidate is
# still scored exactly. More levels afford fewer points; their scores also differ more between candidates.
BINS_PER_LEVEL = (256, 256, 128, 64, 48, 32, 24, 16)
CONTENDER_MARGIN = (0.003, 0.003, 0.003, 0.003, 0.005, 0.008, 0.012, 0.02)
PRODUCT_ROWS = 1024  # histograms multiplied by the table at once, about 16 MB of them at 8 bits
HISTOGRAM_GAIN = 4  # exact values a table entry may cost, for each value that is described by the table
CACHED_BITS = 5  # tables of one level grid are kept between calls up to this width (16 MB at most)
FEWEST_TAIL_VALUES = 8  # largest values at either end whose clipping is put right one by one ...
TAIL_SHARE = 128  # ... or one in so many, if that is more


def search_range(
    weight: Tensor, bits: int | Tensor, *, grid: Grid = "affine", exponent: float = 2.4, candidates: int = 80
) -> QParams:
    """One level grid for each output channel, with the clipping that loses least.

    Shrinks both ends of a channel's range by 1.00, 0.99, ... and keeps the scale with the smallest mean
    |x - x_hat|**exponent; of equal ones, the widest. The zero point is that of the full range.

    Args:
        weight: (C_out, ...), any float dtype.
        bits: 1..8, one number or (C_out,).
        grid: where the levels sit, see `affine`.
        exponent: 2.4 as in MPQ-DM's code and its ancestors, 2.0 for the mean squared error; 1..4.
        candidates: how many shrink factors, 1..100; 80 ends at 0.21 of the range.

    Returns:
        QParams of shape (C_out,), float32. All-zero channels get scale 1e-12, channels with NaN or
        infinity NaN.

    Raises:
        ShapeError: fewer than two axes, or no values in a channel.
        SettingsError: a setting outside its range.
    """
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, ...), got shape {tuple(weight.shape)}")
    return search_range_tensor(weight.flatten(1), bits, grid=grid, exponent=exponent, candidates=candidates)


@torch.no_grad()
def search_range_tensor(
    values: Tensor, bits: int | Tensor, *, grid: Grid = "affine", exponent: float = 2.4, candidates: int = 80
) -> QParams:
    """One level grid for a whole tensor, or one for each row: activations, by timestep for instance.

    Args:
        values: (n,) or (T, n); flatten other shapes first.
        bits: 1..8, one number or (T,).
        grid: as in `search_range`.
        exponent: as in `search_range`.
        candidates: as in `search_range`.

    Returns:
        QParams of shape () or (T,), float32.

    Raises:
        ShapeError: other shapes, or no values.
        SettingsError: a setting outside its range.
    """
    if values.ndim not in (1, 2) or values.shape[-1] == 0:
        raise ShapeError(f"values must be (n,) or (T, n) with n > 0, got shape {tuple(values.shape)}")
    if not 1.0 <= exponent <= 4.0:
        raise SettingsError(f"exponent must be in [1, 4], got {exponent}")
    if not 1 <= candidates <= MAX_CANDIDATES:
        raise SettingsError(f"candidates must be in 1..{MAX_CANDIDATES}, got {candidates}")
    if values.ndim == 1:
        found = search_range_tensor(
            values.unsqueeze(0), bits, grid=grid, exponent=exponent, candidates=candidates
        )
        return QParams(scale=found.scale[0], zero_point=found.zero_point[0], bits=found.bits[0], grid=grid)
    rows = values.detach().float()  # (T, n)
    blocks = torch.split(rows, _height(rows))
    low = torch.cat([block.amin(dim=1) for block in blocks])
    high = torch.cat([block.amax(dim=1) for block in blocks])
    full = choose_qparams_minmax(low, high, bits, grid)
    search = _Search(rows, full, exponent, candidates)
    search.score_contenders()
    scale = full.scale * search.factors[_first_smallest(search.scores)]
    return QParams(scale=scale, zero_point=full.zero_point, bits=full.bits, grid=grid)


def shrink_factors(candidates: int = 80) -> Tensor:
    """1.00, 0.99, ...: (candidates,) float32."""
    return 1.0 - SHRINK_STEP * torch.arange(candidates, dtype=torch.float64).float()


class _Search:
    """Scores of (row, candidate): infinite until computed, exact where the candidate may be the best one."""

    def __init__(self, rows: Tensor, full: QParams, exponent: float, candidates: int) -> None:
        self.rows, self.full, self.exponent = rows, full, exponent
        self.mid_rise = full.grid == "mid-rise"
        self.factors = shrink_factors(candidates).to(rows.device)  # (F,)
        self.lowest = -full.zero_point  # (T,) outermost levels, in steps
        self.highest = torch.ldexp(torch.ones_like(full.scale), full.bits) - 1.0 - full.zero_point  # (T,)
        self.scores = torch.full((rows.shape[0], candidates), torch.inf, device=rows.device)  # (T, F)
        self.wanted = torch.zeros_like(self.scores, dtype=torch.bool)

    def score_contenders(self) -> None:
        """Fill every score that matters."""
        shared: dict[int, list[Tensor]] = {}
        for members in self._groups():
            bits = int(self.full.bits[members[0]])
            entries = 2**bits * BINS_PER_LEVEL[bits - 1] * self.factors.numel()
            if bits <= CACHED_BITS or entries < HISTOGRAM_GAIN * members.numel() * self.rows.shape[1]:
                lowest = float(self.lowest[members[0]])
                self._select(members, bits, start=lowest - 0.5, edges=(lowest, lowest + 2.0**bits - 1.0))
            else:
                shared.setdefault(bits, []).append(members)
        for bits, groups in shared.items():
            self._select(torch.cat(groups), bits, start=0.0, edges=None)
        self._score()

    def _groups(self) -> list[Tensor]:
        """Indices of rows with a range to search, in groups of one level grid."""
        alive = torch.isfinite(self.full.scale) & (self.full.scale > SMALLEST_SCALE)
        indices = alive.nonzero().squeeze(1)
        key = self.full.bits[indices] * 1024 + (self.full.zero_point[indices] * 2).long()
        order = torch.argsort(key, stable=True)
        sizes = torch.unique_consecutive(key[order], return_counts=True)[1].tolist()
        return list(torch.split(indices[order], sizes))

    def _select(self, members: Tensor, bits: int, *, start: float, edges: tuple[float, float] | None) -> None:
        """Mark the candidates whose estimated score is near the best.

        With `edges`, members share one grid and one table holds its clipping. Without, they share only the
        distance of levels; the table holds rounding alone, and clipped values are put right one by one.
        """
        build = _table if edges and bits > CACHED_BITS else _cached_table
        table = build(bits, start, edges, self.mid_rise, self.exponent, self.factors.numel())
        table = table.to(self.rows.device)  # (bins, F)
        margin = CONTENDER_MARGIN[bits - 1]
        height = _height(self.rows)
        kept = min(self.rows.shape[1], max(FEWEST_TAIL_VALUES, self.rows.shape[1] // TAIL_SHARE))
        if edges is None:
            height = min(height, max(1, BLOCK_VALUES // (2 * kept * self.factors.numel())))
        for chunk in torch.split(members, PRODUCT_ROWS):
            histograms, corrections = [], []
            for part in torch.split(chunk, height):
                scale = self.full.scale[part].unsqueeze(1)
                block = self.rows.index_select(0, part).div_(scale)  # (g, n) in steps of the full range
                if edges is None:
                    corrections.append(self._clipping(block, part, kept))
                position = block.sub_(start) if edges else block.abs_()
                histograms.append(_histogram(position.mul_(BINS_PER_LEVEL[bits - 1]), table.shape[0]))
            estimates = _product(torch.cat(histograms), table)  # (rows of the chunk, F)
            reliable = estimates
            if edges is None:
                estimates += torch.cat([correction for correction, _ in corrections])
                complete = torch.cat([complete for _, complete in corrections])
                reliable = torch.where(complete, estimates, torch.inf)  # others are too low
            best = reliable.amin(dim=1, keepdim=True)
            self.wanted[chunk] = estimates <= best + margin * best.abs()

    def _clipping(self, block: Tensor, part: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """(g, F) what clipping adds to scores without it, and (g, F) whether all clipped values were seen."""
        tails = torch.stack([block.topk(kept, dim=1).values, block.neg().topk(kept, dim=1).values], dim=1)
        edges = torch.stack([self.highest[part], -self.lowest[part]], dim=1)[:, :, None, None]  # (g, 2, 1, 1)
        steps = tails.unsqueeze(3) / self.factors  # (g, 2, k, F) in steps of the candidate
        nearest = _nearest(steps, mid_rise=self.mid_rise)
        beyond = steps > edges + 0.5
        change = _powers((steps - edges).clamp_(min=0.0), self.exponent)
        change -= _powers(steps - nearest, self.exponent)
        correction = (change * beyond).sum(dim=(1, 2)) * self.factors.pow(self.exponent)
        complete = ~beyond[:, :, -1].any(dim=1) | (kept == block.shape[1])
        return correction, complete

    def _score(self) -> None:
        """Compute the wanted scores, sums of |error|**exponent in full-range steps, exactly."""
        row, candidate = self.wanted.nonzero(as_tuple=True)
        for here in torch.split(torch.arange(row.numel(), device=row.device), _height(self.rows)):
            owner, factor = row[here], self.factors[candidate[here]]
            scale = (self.full.scale[owner] * factor).unsqueeze(1)
            steps = self.rows.index_select(0, owner).div_(scale)  # (P, n) in steps of the candidate
            nearest = _nearest(steps, mid_rise=self.mid_rise)
            nearest.clamp_(self.lowest[owner].unsqueeze(1), self.highest[owner].unsqueeze(1))
            error = _powers(steps.sub_(nearest), self.exponent)
            self.scores[owner, candidate[here]] = error.sum(dim=1) * factor.pow(self.exponent)


def _height(rows: Tensor) -> int:
    """How many rows make a block."""
    return max(1, BLOCK_VALUES // rows.shape[1])


def _nearest(steps: Tensor, *, mid_rise: bool) -> Tensor:
    """Nearest level of a grid without ends; a tie goes either way, its error is the same."""
    if mid_rise:
        return steps.sub(0.5).add_(ROUNDING).sub_(ROUNDING).add_(0.5)
    return steps.add(ROUNDING).sub_(ROUNDING)


def _powers(error: Tensor, exponent: float) -> Tensor:
    """|error|**exponent in place."""
    return error.square_() if exponent == 2.0 else error.abs_().pow_(exponent)


def _histogram(position: Tensor, bins: int) -> Tensor:
    """(g, bins) histogram of positions in units of bins; a value is shared by its two nearest points."""
    index = position.clamp_(0, bins - 2).to(torch.int64)
    upper = position.sub_(index)
    counts = torch.zeros(position.shape[0], bins, device=position.device)
    shifts = torch.zeros_like(counts)
    counts.scatter_add_(1, index, torch.ones((), device=position.device).expand_as(upper))
    shifts.scatter_add_(1, index, upper)
    counts -= shifts
    counts[:, 1:] += shifts[:, :-1]
    return counts


def _product(histograms: Tensor, table: Tensor) -> Tensor:
    """`histograms @ table`; on a CPU row by row, too little at once to be split over threads."""
    if histograms.device.type != "cpu":
        return histograms @ table
    rows = np.matmul(histograms.numpy()[:, np.newaxis], table.numpy())  # (g, 1, F)
    return torch.from_numpy(rows[:, 0])


def _table(
    bits: int,
    start: float,
    edges: tuple[float, float] | None,
    mid_rise: bool,
    exponent: float,
    candidates: int,
) -> Tensor:
    """(bins, F) |error|**exponent at each point of the histogram for each candidate, in full-range steps."""
    per_level = BINS_PER_LEVEL[bits - 1]
    points = torch.arange(2**bits * per_level + 2, dtype=torch.float32) / per_level + start  # (bins,)
    factors = shrink_factors(candidates)  # (F,)
    steps = points.unsqueeze(1) / factors  # (bins, F)
    nearest = _nearest(steps, mid_rise=mid_rise)
    if edges is not None:
        nearest.clamp_(*edges)
    return _powers((steps - nearest).mul_(factors), exponent)


_cached_table = lru_cache(maxsize=64)(_table)


def _first_smallest(scores: Tensor) -> Tensor:
    """(g,) index of the smallest score of each row; the first of equal ones."""
    order = torch.arange(scores.shape[1], device=scores.device)
    return torch.where(scores == scores.amin(dim=1, keepdim=True), order, scores.shape[1] - 1).amin(dim=1)
