"""Moving the difficulty of input channels from activations into weights, without changing the product.

`X' = X * delta`, `W' = W / delta` for each input channel, so that `W' X' = W X` in exact arithmetic.
Float32 inside, whatever comes in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpqdm_core.errors import SettingsError, ShapeError

DEAD_BELOW = 1e-5  # a channel whose weights or inputs never exceed this is left alone


def prescale_factors(
    weight_absmax_in: Tensor, input_absmax: Tensor, *, alpha: float = 0.5, eps: float = DEAD_BELOW
) -> Tensor:
    """Factor of every input channel: `delta_i = max|W_i|**(1 - alpha) / max|X_i|**alpha`.

    With alpha = 1/2 both maxima become sqrt(max|W_i| * max|X_i|). A larger alpha moves more of the difficulty
    into the weights.

    Args:
        weight_absmax_in: (C_in,), largest |weight| on input channel i; see `input_channel_absmax`.
        input_absmax: (C_in,), largest |input| of channel i over calibration.
        alpha: 0..1.
        eps: a channel with either maximum at or below eps, or not finite, is dead and gets factor 1.

    Returns:
        (C_in,) float32, finite and above 0: multiply inputs by it, divide weights by it.

    Raises:
        ShapeError: the two are not vectors of one length.
        SettingsError: alpha outside 0..1, or eps not above 0.
    Source:
        SmoothQuant's migration written as a factor on the input. MPQ-DM's own code has no guard for dead
        channels.
    """
    if weight_absmax_in.ndim != 1 or weight_absmax_in.shape != input_absmax.shape:
        raise ShapeError(
            "weight_absmax_in and input_absmax must both be (C_in,), "
            f"got {tuple(weight_absmax_in.shape)} and {tuple(input_absmax.shape)}"
        )
    if not 0.0 <= alpha <= 1.0:
        raise SettingsError(f"alpha must be in [0, 1], got {alpha}")
    if not eps > 0.0:
        raise SettingsError(f"eps must be above 0, got {eps}")
    weight_max = weight_absmax_in.detach().float()  # (C_in,)
    input_max = input_absmax.detach().float().to(weight_max.device)  # (C_in,)
    delta = weight_max.pow(1.0 - alpha) / input_max.pow(alpha)  # (C_in,)
    alive = (weight_max > eps) & (input_max > eps) & torch.isfinite(delta) & (delta > 0)
    alive &= torch.isfinite(weight_max) & torch.isfinite(input_max)
    return torch.where(alive, delta, 1.0)


def input_channel_absmax(weight: Tensor, *, groups: int = 1) -> Tensor:
    """Largest |weight| that multiplies each input channel.

    Args:
        weight: (O, I) of a linear layer or (O, I / groups, kh, kw) of a convolution.
        groups: groups of the convolution; group j of the outputs reads group j of the inputs.

    Returns:
        (I,) float32; NaN where one of the weights is NaN.

    Raises:
        ShapeError: fewer than two axes, or O is no multiple of groups.
    """
    if weight.ndim < 2:
        raise ShapeError(f"weight must be (C_out, C_in, ...), got shape {tuple(weight.shape)}")
    if groups < 1 or weight.shape[0] % groups:
        raise ShapeError(f"{weight.shape[0]} output channels cannot be split into {groups} groups")
    inputs = weight.shape[1]
    magnitude = (
        weight.detach().abs().reshape(groups, -1, inputs, weight[0, 0].numel())
    )  # (groups, O/groups, I/groups, k)
    return magnitude.amax(dim=(1, 3)).flatten().float()  # (I,)
