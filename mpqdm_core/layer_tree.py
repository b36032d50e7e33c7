"""The layers of a network as the tree of modules they stand in, with sums over every branch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Listed(Protocol):
    """What the tree needs of a layer; `LayerSpec` has it."""

    @property
    def name(self) -> str:
        """Dotted path of the module."""

    @property
    def parameters(self) -> int:
        """Weight and bias."""

    @property
    def macs(self) -> int:
        """Of one call."""


@dataclass(kw_only=True)
class Branch:
    """A module: a layer itself, or one that holds layers."""

    name: str  # the last word of its path
    path: str
    layer: Listed | None = None
    parameters: int = 0
    macs: int = 0
    layers: int = 0
    peak: float | None = None  # highest value of any channel below, of those that are known
    children: dict[str, Branch] = field(default_factory=dict)


def layer_tree(layers: Iterable[Listed], peaks: Mapping[str, float]) -> Branch:
    """Build the tree; branches keep the order in which their first layer comes.

    Args:
        layers: in running order.
        peaks: a number for some of the layers; a branch shows the largest.

    Returns:
        The root, whose path is empty.
    """
    root = Branch(name="", path="")
    for layer in layers:
        way = [root]
        for word in layer.name.split("."):
            parent = way[-1]
            path = f"{parent.path}.{word}" if parent.path else word
            way.append(parent.children.setdefault(word, Branch(name=word, path=path)))
        way[-1].layer = layer
        for branch in way:
            branch.parameters += layer.parameters
            branch.macs += layer.macs
            branch.layers += 1
            if layer.name in peaks:
                known = branch.peak
                branch.peak = peaks[layer.name] if known is None else max(known, peaks[layer.name])
    return root
