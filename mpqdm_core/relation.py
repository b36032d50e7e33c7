"""Relations inside a feature map: which positions look alike, and how far two networks disagree about it.

Time-smoothed relation distillation (TRD) averages the features of consecutive denoising steps, compares every
position with every other, and asks the student to agree with the teacher's rows of similarities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mpqdm_core.errors import SettingsError, ShapeError


def smoothed(features: Sequence[Tensor]) -> Tensor:
    """Mean of the features of consecutive steps: N of (B, C, h, w) -> (B, C, h, w).

    Raises:
        ShapeError: there is none, or their shapes differ.
    """
    if not features or any(feature.shape != features[0].shape for feature in features):
        raise ShapeError(f"expected features of one shape, got {[tuple(f.shape) for f in features]}")
    return torch.stack(list(features)).mean(dim=0)


def relation_logits(features: Tensor, *, temperature: float = 1.0, pool: int | None = None) -> Tensor:
    """Cosine similarity of every position with every other, over the temperature.

    Args:
        features: (B, C, h, w).
        temperature: above 0; small ones sharpen the rows.
        pool: average features to pool x pool positions first; None, or a side not above it, keeps all. The
            map has (h w)**2 entries a sample.

    Returns:
        (B, P, P) float32, P the number of positions.

    Raises:
        ShapeError: `features` has other than four axes.
        SettingsError: the temperature is not above 0, or `pool` below 1.
    """
    if features.ndim != 4:
        raise ShapeError(f"features must be (B, C, h, w), got shape {tuple(features.shape)}")
    if not temperature > 0 or (pool is not None and pool < 1):
        raise SettingsError(f"temperature must be above 0 and pool at least 1, got {temperature} and {pool}")
    features = features.float()
    if pool is not None and max(features.shape[2:]) > pool:
        features = functional.adaptive_avg_pool2d(features, pool)
    directions = functional.normalize(features.flatten(2), dim=1)  # (B, C, P)
    return directions.transpose(1, 2) @ directions / temperature


def relation_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    pool: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of the student's rows of similarities from the teacher's.

    Args:
        student: (B, C, h, w), keeps its graph.
        teacher: the same shape; no gradient reaches it.
        temperature: of the softmax over each row.
        pool: see `relation_logits`.
        reduction: "mean" over samples and rows, which neither batch nor feature size changes; "sum" as
            MPQ-DM's released code.

    Returns:
        () float32, at least 0 up to rounding.

    Raises:
        ShapeError: the two shapes differ.
        SettingsError: no such reduction, or see `relation_logits`.

    Source:
        TRD of MPQ-DM; CIRKD has the map across images. KL(softmax(S_teacher) || softmax(S_student)).
    """
    if student.shape != teacher.shape:
        raise ShapeError(
            f"student and teacher must agree, got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if reduction not in ("mean", "sum"):
        raise SettingsError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    own = relation_logits(student, temperature=temperature, pool=pool).log_softmax(dim=2)  # (B, P, P)
    with torch.no_grad():
        wanted = relation_logits(teacher, temperature=temperature, pool=pool).log_softmax(dim=2)
    total = functional.kl_div(own, wanted, reduction="sum", log_target=True)
    return total / (own.shape[0] * own.shape[1]) if reduction == "mean" else total
