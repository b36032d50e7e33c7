"""`sprites-encoder`: a small classifier whose features stand in for Inception's on the sprites.

Its 128 pooled features serve FID and precision/recall, its 16x4x4 spatial features sFID, its class
probabilities the inception score and the class accuracy. Figures on these features compare models of
this project with one another; they cannot be compared with figures on Inception features.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from mpqdm_core.errors import LoadError, ShapeError
from mpqdm_core.zoo import sprites

ENCODER_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "models" / "sprites-encoder"
FEATURES = 128
SPATIAL_CHANNELS = 16
HEADS: dict[str, tuple[str, ...]] = {
    "kind": sprites.KINDS,
    "colour": tuple(sprites.COLOURS),
    "size": sprites.SIZES,
    "background": tuple(sprites.BACKGROUNDS),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderOutput:
    """What the encoder sees in N pictures."""

    features: Tensor  # (N, 128) float32, for FID and precision/recall
    spatial: Tensor  # (N, 16, 4, 4) float32, for sFID
    logits: Tensor  # (N, 10) float32, class scores in the order of `sprites.KINDS`
    attributes: dict[str, Tensor]  # (N, choices) float32 scores of "kind", "colour", "size", "background"


class SpritesEncoder(nn.Module):
    """Four strided convolutions, pooled, with one linear head per attribute."""

    def __init__(self, width: int = 32) -> None:
        """Build it with `width` channels at 32x32 and four times as many at 8x8 and 4x4."""
        super().__init__()
        self.stages = nn.Sequential(
            *_stage(3, width, 5),
            *_stage(width, 2 * width, 3),
            *_stage(2 * width, FEATURES, 3),
            *_stage(FEATURES, FEATURES, 3),
        )
        self.mix = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.to_spatial = nn.Conv2d(FEATURES, SPATIAL_CHANNELS, 1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(FEATURES, len(choices)) for name, choices in HEADS.items()}
        )
        self.from_spatial = nn.Linear(SPATIAL_CHANNELS * 16, len(sprites.KINDS))

    def forward(self, images: Tensor) -> EncoderOutput:
        """Encode (N, 3, 64, 64) float pictures within [-1, 1]; those of half the side are enlarged first."""
        side = sprites.IMAGE_SIZE
        if images.ndim != 4 or tuple(images.shape[1:]) not in ((3, side, side), (3, side // 2, side // 2)):
            raise ShapeError(
                f"images must be (N, 3, {side}, {side}) or half as wide, got {tuple(images.shape)}"
            )
        if images.shape[-1] != side:
            images = nn.functional.interpolate(images, size=(side, side), mode="bilinear")
        grid = self.stages(images)  # (N, 128, 4, 4)
        features = nn.functional.silu(self.mix(grid)).mean(dim=(2, 3))  # (N, 128)
        attributes = {name: head(features) for name, head in self.heads.items()}
        return EncoderOutput(
            features=features, spatial=self.to_spatial(grid), logits=attributes["kind"], attributes=attributes
        )


def _stage(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
    return convolution, nn.GroupNorm(8, outputs), nn.SiLU()


@functools.cache
def load_encoder(folder: Path = ENCODER_FOLDER) -> SpritesEncoder:
    """Load the trained encoder, in evaluation mode.

    Raises:
        LoadError: the weights are missing or do not fit.
    """
    path = folder / "model.safetensors"
    if not path.exists():
        raise LoadError(
            f"No trained encoder at {path.parent.name}/{path.name}: run mpqdm_core.zoo.train_encoder"
        )
    encoder = SpritesEncoder()
    try:
        encoder.load_state_dict(load_file(path))
    except Exception as error:
        raise LoadError(f"The encoder file {path.name} does not fit this version: {error}") from error
    return encoder.eval().requires_grad_(False)
