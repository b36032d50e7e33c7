"""The ten objects of `sprites`: a few polygons each, in a frame with x right, y down, both within [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
ELLIPSE_CORNERS = 36  # enough that no corner shows at 256 pixels


@dataclass(frozen=True, slots=True)
class Palette:
    """The object's colour with its shades, and the two neutral inks."""

    base: Colour
    dark: Colour
    light: Colour
    ink: Colour
    white: Colour


class Pen:
    """Draws polygons given in the object's frame, turned, scaled and moved into the picture."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        side: int,
        centre: tuple[float, float],
        radius: float,
        tilt: float,
        palette: Palette,
    ) -> None:
        """Keep the frame: `centre` and `radius` are shares of `side` (pixels), `tilt` is in radians."""
        self._draw = draw
        self._origin = (centre[0] * side, centre[1] * side)
        self._scale = radius * side
        self._cos, self._sin = math.cos(tilt), math.sin(tilt)
        self.palette = palette

    def polygon(self, points: Points, fill: Colour) -> None:
        """Fill a polygon."""
        moved = []
        for x, y in points:
            turned_x = self._cos * x + self._sin * y
            turned_y = -self._sin * x + self._cos * y
            moved.append((self._origin[0] + self._scale * turned_x, self._origin[1] + self._scale * turned_y))
        self._draw.polygon(moved, fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse with centre (x, y) and half axes rx, ry."""
        turn = 2.0 * math.pi / ELLIPSE_CORNERS
        self.polygon(
            [(x + rx * math.cos(turn * i), y + ry * math.sin(turn * i)) for i in range(ELLIPSE_CORNERS)], fill
        )

    def face(self, x: float, y: float, spread: float = 0.22) -> None:
        """Two eyes and a smile: what a broken model loses first."""
        ink = self.palette.ink
        self.ellipse(x - spread, y, 0.085, 0.11, ink)
        self.ellipse(x + spread, y, 0.085, 0.11, ink)
        width, drop = spread * 0.62, 0.2
        outer = [(x + width * math.cos(a), y + drop + 0.13 * math.sin(a)) for a in _arc(0.0, math.pi, 12)]
        inner = [(x + width * math.cos(a), y + drop + 0.02 * math.sin(a)) for a in _arc(math.pi, 0.0, 12)]
        self.polygon(outer + inner, ink)


def _arc(start: float, stop: float, count: int) -> list[float]:
    return [start + (stop - start) * i / (count - 1) for i in range(count)]


def _star(pen: Pen) -> None:
    corners = []
    for i in range(10):
        reach = 1.0 if i % 2 == 0 else 0.5
        angle = -math.pi / 2 + math.pi * i / 5
        corners.append((reach * math.cos(angle), reach * math.sin(angle)))
    pen.polygon(corners, pen.palette.dark)
    pen.polygon([(0.84 * x, 0.84 * y) for x, y in corners], pen.palette.base)
    pen.face(0.0, 0.0, 0.2)


def _heart(pen: Pen) -> None:
    outline = [(16 * math.sin(t) ** 3 / 17, -_heart_height(t) / 17) for t in _arc(0.0, 2 * math.pi, 60)]
    pen.polygon(outline, pen.palette.dark)
    pen.polygon([(0.86 * x, 0.86 * y - 0.02) for x, y in outline], pen.palette.base)
    pen.ellipse(-0.45, -0.42, 0.14, 0.11, pen.palette.light)
    pen.face(0.0, -0.08)


def _heart_height(t: float) -> float:
    return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)


def _fish(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(0.45, 0.0), (1.0, -0.55), (0.86, 0.0), (1.0, 0.55)], palette.dark)
    pen.polygon([(-0.3, -0.45), (0.1, -0.85), (0.35, -0.4)], palette.dark)
    pen.ellipse(-0.2, 0.0, 0.78, 0.56, palette.base)
    pen.ellipse(-0.12, 0.26, 0.5, 0.24, palette.light)
    pen.polygon([(0.05, -0.05), (0.38, -0.22), (0.38, 0.2)], palette.dark)
    pen.ellipse(-0.55, -0.12, 0.17, 0.17, palette.white)
    pen.ellipse(-0.58, -0.12, 0.09, 0.1, palette.ink)


def _mushroom(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(-0.36, 0.0), (0.36, 0.0), (0.46, 0.9), (-0.46, 0.9)], palette.white)
    cap = [(math.cos(a), 0.1 + 1.05 * math.sin(a)) for a in _arc(math.pi, 2 * math.pi, 30)]
    pen.polygon(cap, palette.base)
    pen.polygon([(-1.0, 0.08), (1.0, 0.08), (0.8, 0.24), (-0.8, 0.24)], palette.dark)
    for x, y, reach in ((-0.5, -0.25, 0.17), (0.12, -0.58, 0.19), (0.58, -0.16, 0.14)):
        pen.ellipse(x, y, reach, reach * 0.9, palette.white)
    pen.face(0.0, 0.45, 0.2)


def _house(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(0.35, -0.9), (0.6, -0.9), (0.6, -0.2), (0.35, -0.2)], palette.dark)
    pen.polygon([(-0.72, -0.1), (0.72, -0.1), (0.72, 0.9), (-0.72, 0.9)], palette.white)
    pen.polygon([(-1.0, 0.0), (0.0, -0.95), (1.0, 0.0)], palette.base)
    pen.polygon([(-0.18, 0.3), (0.18, 0.3), (0.18, 0.9), (-0.18, 0.9)], palette.dark)
    for x in (-0.47, 0.47):
        pen.polygon([(x - 0.15, 0.15), (x + 0.15, 0.15), (x + 0.15, 0.48), (x - 0.15, 0.48)], palette.ink)
    pen.ellipse(0.0, -0.33, 0.16, 0.16, palette.light)


def _tree(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(-0.17, 0.3), (0.17, 0.3), (0.22, 1.0), (-0.22, 1.0)], (122, 82, 56))
    for top, bottom, half, fill in (
        (-0.05, 0.62, 0.86, palette.dark),
        (-0.5, 0.22, 0.7, palette.base),
        (-1.0, -0.2, 0.5, palette.light),
    ):
        pen.polygon([(0.0, top), (half, bottom), (-half, bottom)], fill)


def _cat(pen: Pen) -> None:
    palette = pen.palette
    for side in (-1.0, 1.0):
        pen.polygon([(side * 0.85, -0.95), (side * 0.88, -0.1), (side * 0.22, -0.5)], palette.base)
        pen.polygon([(side * 0.74, -0.7), (side * 0.74, -0.3), (side * 0.42, -0.48)], palette.light)
    pen.ellipse(0.0, 0.12, 0.92, 0.76, palette.base)
    pen.ellipse(0.0, 0.4, 0.44, 0.34, palette.white)
    for side in (-1.0, 1.0):
        pen.ellipse(side * 0.38, -0.02, 0.16, 0.19, palette.white)
        pen.ellipse(side * 0.36, 0.0, 0.09, 0.14, palette.ink)
    pen.polygon([(-0.12, 0.24), (0.12, 0.24), (0.0, 0.38)], palette.ink)


def _boat(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(-0.07, -1.0), (0.07, -1.0), (0.07, 0.4), (-0.07, 0.4)], (122, 82, 56))
    pen.polygon([(0.12, -0.92), (0.12, 0.22), (0.85, 0.22)], palette.white)
    pen.polygon([(-0.12, -0.7), (-0.12, 0.22), (-0.72, 0.22)], palette.light)
    pen.polygon([(-1.0, 0.34), (1.0, 0.34), (0.66, 0.9), (-0.66, 0.9)], palette.base)
    pen.polygon([(-1.0, 0.34), (1.0, 0.34), (0.93, 0.46), (-0.93, 0.46)], palette.dark)


def _flower(pen: Pen) -> None:
    palette = pen.palette
    for i in range(6):
        angle = math.pi * i / 3 + math.pi / 6
        fill = palette.base if i % 2 == 0 else palette.dark
        pen.ellipse(0.58 * math.cos(angle), 0.58 * math.sin(angle), 0.4, 0.4, fill)
    pen.ellipse(0.0, 0.0, 0.48, 0.48, palette.white)
    pen.face(0.0, -0.08, 0.17)


def _rocket(pen: Pen) -> None:
    palette = pen.palette
    pen.polygon([(-0.26, 0.5), (0.26, 0.5), (0.0, 1.0)], (250, 150, 40))
    for side in (-1.0, 1.0):
        pen.polygon([(side * 0.3, 0.0), (side * 0.78, 0.62), (side * 0.3, 0.55)], palette.dark)
    body = [(0.42 * math.sin(a), -1.0 + 1.6 * (a / math.pi) ** 1.1) for a in _arc(0.0, math.pi * 0.82, 20)]
    pen.polygon(body + [(-x, y) for x, y in reversed(body)], palette.white)
    nose = [(x, y) for x, y in body if y < -0.5]
    pen.polygon(nose + [(-x, y) for x, y in reversed(nose)], palette.base)
    pen.ellipse(0.0, -0.12, 0.2, 0.2, palette.base)
    pen.ellipse(0.0, -0.12, 0.12, 0.12, (190, 226, 246))


SHAPES: dict[str, Callable[[Pen], None]] = {
    "star": _star,
    "heart": _heart,
    "fish": _fish,
    "mushroom": _mushroom,
    "house": _house,
    "tree": _tree,
    "cat": _cat,
    "boat": _boat,
    "flower": _flower,
    "rocket": _rocket,
}
