"""An autoencoder that starts as "shrink the picture, then enlarge it" instead of as noise.

GroupNorm subtracts what the sprites consist of, flat colours, so an autoencoder started at random spends
most of a short training on finding them again. Here a few carrier channels pass colours through the network:
every residual branch starts at zero, and each colour travels twice, once negated, because
silu(x) - silu(-x) = x makes the pair pass the activations unchanged. All weights stay trainable.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

COLOURS = 3
ANCHOR = 2 * COLOURS  # a channel that is constant, so that the norms' scale can be read off
CARRIERS = ANCHOR + 1
START_LOG_VARIANCE = -5.0  # of the posterior


@torch.no_grad()
def start_as_identity_(vae: AutoencoderKL) -> None:
    """Set the weights of an untrained `AutoencoderKL` in place."""
    for module in vae.modules():
        if hasattr(module, "conv1") and hasattr(module, "conv2"):  # a residual block
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if getattr(module, "conv_shortcut", None) is not None:
                _carry(module.conv_shortcut, [(0, 0)])
    for block in vae.encoder.down_blocks:
        for downsampler in block.downsamplers or ():
            _carry(downsampler.conv, [(0, 0), (0, 1), (1, 0), (1, 1)])
    for block in vae.decoder.up_blocks:
        for upsampler in block.upsamplers or ():
            _carry(upsampler.conv, [(1, 1)])
    _spread(vae.encoder.conv_in)
    _spread(vae.decoder.conv_in)
    _collect(vae.encoder.conv_out)
    _collect(vae.decoder.conv_out)
    latents = vae.config.latent_channels
    nn.init.zeros_(vae.encoder.conv_out.weight[latents:])
    nn.init.constant_(vae.encoder.conv_out.bias[latents:], START_LOG_VARIANCE)
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(convolution.weight)
        nn.init.zeros_(convolution.bias)


def _carry(convolution: nn.Conv2d, taps: list[tuple[int, int]]) -> None:
    """Let the carriers through, averaged over the kernel's `taps`."""
    rows = torch.arange(CARRIERS)
    convolution.weight[:CARRIERS] = 0.0
    convolution.bias[:CARRIERS] = 0.0  # type: ignore[index]
    for y, x in taps:
        convolution.weight[rows, rows, y, x] = 1.0 / len(taps)


def _spread(convolution: nn.Conv2d) -> None:
    """Make the carriers out of the first three input channels: a copy, a negated copy, a constant."""
    weight, centre = convolution.weight, convolution.kernel_size[0] // 2
    _clear(weight[:CARRIERS], convolution.bias)
    for colour in range(COLOURS):
        weight[colour, colour, centre, centre] = 1.0
        weight[colour + COLOURS, colour, centre, centre] = -1.0
    convolution.bias[ANCHOR] = 1.0  # type: ignore[index]


def _collect(convolution: nn.Conv2d) -> None:
    """Join copy and negated copy to the first three output channels."""
    weight, centre = convolution.weight, convolution.kernel_size[0] // 2
    _clear(weight[:COLOURS], convolution.bias)
    for colour in range(COLOURS):
        weight[colour, colour, centre, centre] = 1.0
        weight[colour, colour + COLOURS, centre, centre] = -1.0


def _clear(weight: Tensor, bias: Tensor | None) -> None:
    weight.zero_()
    if bias is not None:
        bias.zero_()
