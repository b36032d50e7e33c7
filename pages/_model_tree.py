"""The layers of a network for the tree on the Model page: names, sizes and peaks as JSON."""

from __future__ import annotations

from typing import Any

from mpqdm_core.layer_tree import Branch, layer_tree
from pages._bridge import dumps
from pages._workspace import Workspace

MEGA, KILO = 1e6, 1e3
TIMES = " \N{MULTIPLICATION SIGN} "
IN_BUDGET = "in the budget"


def tree(work: Workspace) -> str:
    """What assets/js/layers.js shows as a tree; nothing while the layers are not known."""
    if not work.layers:
        return ""
    root = layer_tree(work.layers, peaks(work))
    return dumps({"children": [_node(child) for child in root.children.values()], "layers": root.layers})


def peaks(work: Workspace) -> dict[str, float]:
    """Highest kurtosis of any channel of each layer that was measured."""
    found = work.table(next(iter(work.measured_bits()), None))
    if found is not None:
        return {name: float(found.kurtosis[found.layer_slice(name)].max()) for name in found.layer_names}
    stats = work.outlier_stats()
    if stats is None:
        return {}
    values, starts = stats.weights["kurtosis"], stats.layer_start
    return {
        name: float(values[starts[row] : starts[row + 1]].max()) for row, name in enumerate(stats.layer_names)
    }


def size(count: int) -> str:
    """A count for a narrow column."""
    if count >= 1000 * MEGA:
        return f"{count / MEGA / KILO:.2f} G"
    if count >= MEGA:
        return f"{count / MEGA:.2f} M"
    return f"{count / KILO:.1f} k" if count >= KILO else str(count)


def _node(branch: Branch) -> dict[str, Any]:
    """One branch, folded together with its only child: to_out.0 is one name."""
    name = branch.name
    while branch.layer is None and len(branch.children) == 1:
        branch = next(iter(branch.children.values()))
        name = f"{name}.{branch.name}"
    node: dict[str, Any] = {
        "name": name,
        "path": branch.path,
        "parameters": size(branch.parameters),
        "macs": size(branch.macs) if branch.macs else "",
        "peak": branch.peak,
    }
    if branch.children:
        node["layers"] = branch.layers
        node["children"] = [_node(child) for child in branch.children.values()]
    if branch.layer is not None:
        layer: Any = branch.layer
        node["kind"] = f"{layer.kind} {shape(layer)}"
        node["bits"] = layer.exempt or IN_BUDGET
        node["why"] = layer.reason
    return node


def shape(layer: Any) -> str:
    """Axes of a weight: output channels first."""
    sides = (layer.out_channels, layer.in_channels // max(layer.groups, 1), *layer.kernel)
    return TIMES.join(str(side) for side in sides)
