from types import SimpleNamespace

from mpqdm_core.layer_tree import layer_tree


def layer(name, parameters, macs):
    return SimpleNamespace(name=name, parameters=parameters, macs=macs)


def test_branches_hold_sums_and_the_highest_peak_in_running_order():
    layers = [layer("b.1.conv", 5, 50), layer("b.0.conv", 7, 70), layer("a", 1, 10), layer("b.0.lin", 2, 20)]
    root = layer_tree(layers, {"b.1.conv": 4.0, "b.0.lin": 9.0, "b.0.conv": 6.0})
    assert (root.parameters, root.macs, root.layers, root.peak) == (15, 150, 4, 9.0)
    assert list(root.children) == ["b", "a"] and list(root.children["b"].children) == ["1", "0"]
    inner = root.children["b"].children["0"]
    assert (inner.path, inner.parameters, inner.layers, inner.peak) == ("b.0", 9, 2, 9.0)
    assert inner.children["lin"].layer is layers[3] and inner.layer is None
    assert root.children["a"].peak is None
