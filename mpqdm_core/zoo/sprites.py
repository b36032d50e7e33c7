"""`sprites`: an endless procedural data set of small friendly scenes, deterministic by (seed, index).

Each scene is 64x64 RGB: one object out of ten kinds with a colour, a size, a place and a tilt, in front of a
plain sky and a hill. Attributes come with it, as numbers, as a class label and as a caption. Drawn at four
times the size and averaged down, so that edges are smooth and quantization damage to them is easy to see.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mpqdm_core.errors import SettingsError
from mpqdm_core.zoo.sprite_shapes import SHAPES, Palette, Pen

IMAGE_SIZE = 64
SUPERSAMPLING = 4
KINDS: tuple[str, ...] = tuple(SHAPES)
SIZES: tuple[str, ...] = ("small", "medium", "large")
RADII: tuple[tuple[float, float], ...] = ((0.26, 0.29), (0.32, 0.35), (0.38, 0.41))  # of the image side

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 62, 58),
    "orange": (245, 140, 40),
    "yellow": (250, 205, 52),
    "green": (76, 172, 80),
    "teal": (32, 172, 172),
    "blue": (58, 110, 222),
    "purple": (138, 82, 200),
    "pink": (242, 120, 178),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "sky": (168, 214, 244),
    "night": (38, 44, 84),
    "mint": (190, 236, 208),
    "lavender": (214, 200, 242),
    "cream": (250, 236, 204),
    "rose": (250, 208, 212),
}
TILT_LIMIT_DEG = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpriteAttributes:
    """Everything that decides one picture."""

    kind: str
    colour: str
    size: str
    background: str
    radius: float  # half the object's extent, as a share of the image side
    x: float  # centre, share of the image side from the left
    y: float  # centre, share of the image side from the top
    tilt_deg: float  # counter-clockwise
    hill: float  # height of the hill, share of the image side

    @property
    def label(self) -> int:
        """Index of the kind in `KINDS`: the class label."""
        return KINDS.index(self.kind)

    @property
    def caption(self) -> str:
        """One English phrase that names size, colour, kind and background."""
        return f"a {self.size} {self.colour} {self.kind} on a {self.background} background"


def attributes(seed: int, index: int) -> SpriteAttributes:
    """Draw the attributes of scene `index` of stream `seed`; the same pair always gives the same scene."""
    if index < 0:
        raise SettingsError(f"index must be 0 or more, got {index}")
    rng = np.random.default_rng([seed, index])
    size = int(rng.integers(len(SIZES)))
    radius = float(rng.uniform(*RADII[size]))
    margin = radius + 0.03
    return SpriteAttributes(
        kind=KINDS[int(rng.integers(len(KINDS)))],
        colour=list(COLOURS)[int(rng.integers(len(COLOURS)))],
        size=SIZES[size],
        background=list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))],
        radius=radius,
        x=float(rng.uniform(margin, 1.0 - margin)),
        y=float(rng.uniform(margin, 1.0 - margin)),
        tilt_deg=float(rng.uniform(-TILT_LIMIT_DEG, TILT_LIMIT_DEG)),
        hill=float(rng.uniform(0.12, 0.34)),
    )


def render(scene: SpriteAttributes) -> NDArray[np.uint8]:
    """Paint one scene.

    Returns:
        (64, 64, 3) uint8, sRGB.
    """
    side = IMAGE_SIZE * SUPERSAMPLING
    sky = BACKGROUNDS[scene.background]
    image = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(image)
    _hill(draw, side, scene.hill, _shade(sky, 0.86))
    base = COLOURS[scene.colour]
    palette = Palette(
        base=base, dark=_shade(base, 0.68), light=_tint(base, 0.55), ink=(44, 36, 52), white=(255, 253, 246)
    )
    pen = Pen(draw, side, (scene.x, scene.y), scene.radius, math.radians(scene.tilt_deg), palette)
    SHAPES[scene.kind](pen)
    return np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


def batch(seed: int, indices: Sequence[int] | range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Paint several scenes.

    Returns:
        images (N, 64, 64, 3) uint8 and class labels (N,) int64.
    """
    scenes = [attributes(seed, index) for index in indices]
    if not scenes:
        raise SettingsError("indices must name at least one scene")
    return np.stack([render(scene) for scene in scenes]), np.array([scene.label for scene in scenes])


def halved(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) at half their side, each pixel the mean of four, rounded."""
    count, height, width, colours = images.shape
    quarters = images.reshape(count, height // 2, 2, width // 2, 2, colours)
    rounded: NDArray[np.uint8] = np.round(quarters.mean(axis=(2, 4))).astype(np.uint8)
    return rounded


def _hill(draw: ImageDraw.ImageDraw, side: int, height: float, colour: tuple[int, int, int]) -> None:
    top = side * (1.0 - height)
    draw.ellipse((-0.35 * side, top, 1.35 * side, top + 1.2 * side), fill=colour)


def _shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    red, green, blue = colorsys.hls_to_rgb(hue, lightness * factor, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def _tint(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(channel + (255 - channel) * share) for channel in colour)
    return red, green, blue
