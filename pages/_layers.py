"""Short names and groups of layers, so that a map of a whole network stays readable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

_GROUPS = (
    (re.compile(r"down_blocks\.(\d+)"), "down {}"),
    (re.compile(r"mid_block"), "mid"),
    (re.compile(r"up_blocks\.(\d+)"), "up {}"),
    (re.compile(r"transformer_blocks\.(\d+)"), "block {}"),
)
_WORDS = (
    ("resnets.", "res "),
    ("attentions.", "attn "),
    ("downsamplers.0.", "down "),
    ("upsamplers.0.", "up "),
)


def group(layer: str) -> str:
    """The part of the network a layer belongs to, such as "down 0", "mid" or "up 2"."""
    for pattern, name in _GROUPS:
        if found := pattern.search(layer):
            return name.format(*found.groups())
    return layer.split(".")[0].replace("_", " ")


def short(layer: str) -> str:
    """A layer's name without the words every neighbour repeats: "down 0 · res 1 · conv2"."""
    rest = re.sub(r"^(down_blocks\.\d+|up_blocks\.\d+|mid_block|transformer_blocks\.\d+)\.", "", layer)
    for long, brief in _WORDS:
        rest = rest.replace(long, brief)
    rest = rest.replace("to_out.0", "to_out").replace(".", " · ")
    return rest if rest == layer.replace(".", " · ") else f"{group(layer)} · {rest}"


def spans(layers: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of neighbouring layers of one group as (name, first row, last row)."""
    runs, row = [], 0
    for name, members in groupby(layers, key=group):
        count = len(list(members))
        runs.append((name, row, row + count - 1))
        row += count
    return runs
