"""Low-rank corrections of a weight, added before it is rounded: Q(W + B A).

One pair of factors serves linear layers and convolutions alike. For a convolution the first factor has the
kernel's shape and the second is 1 x 1 ("shared", as EfficientDM), or every kernel tap has a pair of its own
("per-tap", as MPQ-DM's released code, with k * k times the second factor).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mpqdm_core.errors import SettingsError

ConvFactors = Literal["shared", "per-tap"]
CONV_FACTORS: tuple[ConvFactors, ...] = get_args(ConvFactors)


class LowRank(nn.Module):
    """Factors A and B of a correction with the shape of one weight."""

    def __init__(self, shape: torch.Size, rank: int, conv_factors: ConvFactors = "shared") -> None:
        """Start at no correction: A as `nn.Linear` starts, B zero.

        Args:
            shape: of the weight, (O, I) or (O, I / groups, kh, kw).
            rank: capped at what the weight's matrix can have.
            conv_factors: how a kernel's taps share factors.

        Raises:
            SettingsError: the rank is below 1 or there is no such arrangement.
        """
        super().__init__()
        if rank < 1 or conv_factors not in CONV_FACTORS:
            raise SettingsError(
                f"rank must be at least 1 and conv_factors one of {', '.join(CONV_FACTORS)}, "
                f"got {rank} and {conv_factors!r}"
            )
        self.shape = shape
        outputs, inputs = shape[0], shape[1]
        taps = math.prod(shape[2:]) if conv_factors == "per-tap" else 1
        columns = math.prod(shape[1:]) // taps
        self.rank = min(rank, outputs, columns)
        # One matrix product per tap: (taps, O, r) @ (taps, r, columns).
        self.a = nn.Parameter(torch.empty(taps, self.rank, columns))
        self.b = nn.Parameter(torch.zeros(taps, outputs, self.rank))
        nn.init.uniform_(self.a, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def delta(self) -> Tensor:
        """B A, in the weight's shape."""
        product = self.b @ self.a  # (taps, O, columns)
        if len(product) == 1:
            return product.view(self.shape)
        return product.permute(1, 2, 0).reshape(self.shape)

    @torch.no_grad()
    def fit_(self, target: Tensor) -> None:
        """Make B A the closest matrix of this rank to `target`, which has the weight's shape."""
        taps = len(self.a)
        matrices = target.detach().float().reshape(1, self.shape[0], -1)
        if taps > 1:
            matrices = target.detach().float().flatten(2).permute(2, 0, 1)  # (taps, O, I / groups)
        u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        root = s[:, : self.rank].sqrt()  # (taps, r)
        self.b.copy_(u[:, :, : self.rank] * root.unsqueeze(1))
        self.a.copy_(vh[:, : self.rank] * root.unsqueeze(2))
