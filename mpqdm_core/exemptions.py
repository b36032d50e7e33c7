"""Which layers stay out of the bit budget, by name, for the networks of diffusers."""

from __future__ import annotations

from collections.abc import Iterable

from mpqdm_core.denoiser import ExemptRule

STANDARD_EXEMPT = (
    ExemptRule(pattern="time_embedding.*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(pattern="class_embedding*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(pattern="add_embedding.*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(
        pattern="conv_in",
        exempt="8-bit",
        reason="first layer: sees the noisy input itself",
        # Its input is Gaussian noise, whose largest value grows with every picture drawn: clipping one latent
        # at every step spoils a corner of the picture, and 8 bits have the room.
        input_headroom=1.25,
    ),
    ExemptRule(pattern="conv_out", exempt="8-bit", reason="last layer: its error is the output's error"),
    ExemptRule(pattern="*.conv_shortcut", exempt="full precision", reason="shortcut of a residual block"),
    ExemptRule(pattern="*.downsamplers.*", exempt="full precision", reason="downsampling convolution"),
)
"""What MPQ-DM's released code keeps out of the budget, in the names of diffusers: its first three layers and
its last at 8 bits, `skip*` and `op` (downsampling) in full precision. Upsampling is quantized."""

TRANSFORMER_EXEMPT = (
    ExemptRule(pattern="pos_embed.*", exempt="8-bit", reason="first layer: sees the noisy input itself"),
    ExemptRule(pattern="x_embedder*", exempt="8-bit", reason="first layer: sees the noisy input itself"),
    ExemptRule(pattern="context_embedder*", exempt="8-bit", reason="first layer of the text"),
    ExemptRule(pattern="caption_projection.*", exempt="8-bit", reason="first layers of the text"),
    ExemptRule(pattern="time_text_embed.*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(pattern="*timestep_embedder.*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(pattern="adaln_single.*", exempt="8-bit", reason="small, every block depends on it"),
    ExemptRule(pattern="norm_out.*", exempt="8-bit", reason="modulates the last layer"),
    ExemptRule(pattern="proj_out*", exempt="8-bit", reason="last layer: its error is the output's error"),
)
"""What is kept out of the budget in diffusers' transformers: first and last layers and time embedding, as the
papers on U-Nets do in their names."""


def rules_for(names: Iterable[str]) -> tuple[ExemptRule, ...]:
    """The rules for a network with layers of these names: a transformer's, or else a U-Net's."""
    is_transformer = any("transformer_blocks." in name and not name.startswith(UNET_PARTS) for name in names)
    return TRANSFORMER_EXEMPT if is_transformer else STANDARD_EXEMPT


UNET_PARTS = ("down_blocks.", "mid_block.", "up_blocks.")
