"""A text-to-image U-Net that starts as a trained class-conditional one without its classes.

Everything but the attention blocks has the same shapes in a `UNet2DModel` and a `UNet2DConditionModel` of the
same widths. They are taken over, the class that stands for none becomes part of the timestep's embedding, and
the new transformer blocks add nothing at first: the network can draw shapes from the first step on, and its
training is spent on reading.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn

from mpqdm_core.errors import SettingsError

ATTENTION = ".attentions."


@torch.no_grad()
def start_from_ldm_(unet: UNet2DConditionModel, donor: UNet2DModel, null_class: int) -> None:
    """Set the weights of an untrained text-to-image U-Net in place.

    Args:
        unet: predicts what `donor` without its attention predicts for `null_class`, whatever the text.
        donor: of the same widths, layers and groups, with an embedding of classes.
        null_class: its row of that embedding.

    Raises:
        SettingsError: the two networks do not have the same shapes.
    """
    own, given = unet.state_dict(), donor.state_dict()
    for name, weight in own.items():
        if ATTENTION in name:
            continue
        if name not in given or given[name].shape != weight.shape:
            raise SettingsError(f"{name} of {tuple(weight.shape)} has no counterpart in the other U-Net")
        weight.copy_(given[name])
    unet.time_embedding.linear_2.bias += donor.class_embedding.weight[null_class]
    for name, module in unet.named_modules():
        if name.endswith("proj_out"):  # of a block of attention
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
