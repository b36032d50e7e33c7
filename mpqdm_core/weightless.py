"""Listing a network's layers without computing: its twin on torch's meta device has shapes and no numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mpqdm_core.denoiser import ExemptRule, LayerSpec, describe_layers
from mpqdm_core.family import Family


def list_layers(network: nn.Module, family: Family, rules: Sequence[ExemptRule]) -> tuple[LayerSpec, ...]:
    """What `describe_layers` says; without a real forward pass, which takes minutes for a large model.

    A network that is no longer what its configuration describes, or that does something the meta device
    cannot do, is run for real.
    """
    twin = weightless_twin(network)
    if twin is not None:
        try:
            with torch.device("meta"):
                return describe_layers(twin, family.example(twin), rules)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            logging.getLogger(__name__).info("%s is run for real: %s", type(network).__name__, error)
    return describe_layers(network, family.example(network), rules)


def weightless_twin(network: nn.Module) -> nn.Module | None:
    """A network of the same class and layers on the meta device; None where its configuration gives none."""
    make: Any = getattr(type(network), "from_config", None)
    if make is None:
        return None
    with torch.device("meta"):
        twin: nn.Module = make(network.config)
    # Not the network's own `to`, which warns of modules that like float32 better: here are no numbers.
    twin = nn.Module.to(twin, next(network.parameters()).dtype).eval()
    return twin if _shapes(twin) == _shapes(network) else None


def _shapes(network: nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Class and weight shape of every module that has a weight."""
    return {
        name: (type(module).__name__, tuple(module.weight.shape))
        for name, module in network.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor)
    }
