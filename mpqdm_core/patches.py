"""What one output position of a layer sees of its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpqdm_core.errors import SettingsError
from mpqdm_core.recording import spread


def input_patches(
    layer: nn.Module, inputs: tuple[Tensor, ...], positions: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Gather the inputs of a random sample of output positions, the same in every image and tensor.

    Args:
        layer: an `nn.Linear`, or an `nn.Conv2d` that pads with zeros.
        inputs: tensors of one shape: (..., C_in), or (B, C_in, H, W).
        positions: how many positions of each image; all of them if there are fewer.
        generator: draws the positions.

    Returns:
        for each input (groups, R, K), so that `patches[g] @ weight[g].T` is the layer's output at R places;
        K runs over (C_in / groups, kh, kw) as in a flattened weight.

    Raises:
        SettingsError: the layer is of another kind.
    """
    if isinstance(layer, nn.Linear):
        return _linear(inputs, positions, generator)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        return _conv(layer, inputs, positions, generator)
    raise SettingsError(f"only linear layers and zero-padded 2-D convolutions can be measured, got {layer}")


def _linear(inputs: tuple[Tensor, ...], positions: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    tokens = inputs[0].shape[1:-1].numel()  # 1 for (B, C)
    index = spread(tokens, positions, generator)
    return tuple(x.reshape(len(x), tokens, -1)[:, index].flatten(0, 1).unsqueeze(0) for x in inputs)


def _conv(
    layer: nn.Conv2d, inputs: tuple[Tensor, ...], positions: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    left, right, top, bottom = _padding(layer)
    height = (inputs[0].shape[2] + top + bottom - dh * (kh - 1) - 1) // sh + 1
    width = (inputs[0].shape[3] + left + right - dw * (kw - 1) - 1) // sw + 1
    index = spread(height * width, positions, generator)  # (P,)
    rows = (index // width * sh).unsqueeze(1) + torch.arange(kh) * dh  # (P, kh)
    columns = (index % width * sw).unsqueeze(1) + torch.arange(kw) * dw  # (P, kw)
    rows, columns = rows.to(inputs[0].device), columns.to(inputs[0].device)
    gathered = []
    for x in inputs:
        padded = functional.pad(x, (left, right, top, bottom))
        patches = padded[:, :, rows[:, :, None], columns[:, None, :]]  # (B, C, P, kh, kw)
        by_group = torch.unflatten(patches, 1, (layer.groups, -1)).permute(
            1, 0, 3, 2, 4, 5
        )  # (g, B, P, C/g, kh, kw)
        gathered.append(by_group.flatten(3).flatten(1, 2))  # (g, B * P, K)
    return tuple(gathered)


def _padding(layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """Return zeros added left, right, above and below."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    if layer.padding == "same":
        extra_h, extra_w = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2
    vertical, horizontal = int(layer.padding[0]), int(layer.padding[1])
    return horizontal, horizontal, vertical, vertical
