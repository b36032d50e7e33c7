"""Layers outside the budget: what the model's family says, and what the visitor changes about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mpqdm_core.errors import SettingsError

EIGHT, FULL = "8-bit", "full precision"
BY_HAND = "chosen by hand"

Row = TypeVar("Row")  # LayerRow of the page or LayerSpec of the library
Changes = Mapping[str, str | None]  # layer -> how it is exempt now, None: it shares the budget


def rules(layers: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Names of the layers that the family keeps at 8 bits, and of those it keeps in full precision."""
    running = [layer for layer in layers if layer.macs > 0]
    eight = [layer.name for layer in running if layer.exempt == EIGHT]
    return eight, [layer.name for layer in running if layer.exempt == FULL]


def changes(
    layers: Sequence[Any], eight: Sequence[str] | None, full: Sequence[str] | None
) -> dict[str, str | None]:
    """What two lists of exempt layers change about the family's rules; None leaves the rules alone.

    Raises:
        SettingsError: a layer stands in both lists, the model has no such layer, or none is left.
    """
    if eight is None or full is None or not layers:
        return {}
    known = {layer.name: layer.exempt for layer in layers if layer.macs > 0}
    if strange := [name for name in (*eight, *full) if name not in known]:
        raise SettingsError(f"this model has no layer called {strange[0]!r}: choose exempt layers again")
    if twice := sorted(set(eight) & set(full)):
        raise SettingsError(f"{twice[0]} is kept at 8 bits and in full precision: take it out of one list")
    wanted = dict.fromkeys(known) | dict.fromkeys(eight, EIGHT) | dict.fromkeys(full, FULL)
    if all(wanted.values()):
        raise SettingsError("every layer is exempt: take at least one out of the lists")
    return {name: exempt for name, exempt in wanted.items() if exempt != known[name]}


def lists(layers: Sequence[Any], changed: Changes) -> tuple[list[str], list[str]]:
    """The two lists after `changed`; the opposite of `changes`."""
    return rules(apply(layers, changed))


def apply(layers: Sequence[Row], changed: Changes) -> tuple[Row, ...]:
    """The layers with the changes made; names the model does not have are passed over."""
    return tuple(
        replace(layer, exempt=changed[layer.name], reason=BY_HAND if changed[layer.name] else "")  # type: ignore[attr-defined, type-var]
        if layer.name in changed  # type: ignore[attr-defined]
        else layer
        for layer in layers
    )


def denoiser_with(denoiser: Any, changed: Changes) -> Any:
    """The model with other layers exempt; network and calibration stay the same."""
    return replace(denoiser, layers=apply(denoiser.layers, changed)) if changed else denoiser
