"""What goes wrong in a fine-tuning run, seen in its gradients and scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.layers import QuantLayer
from mpqdm_core.recording import hooks

DROWNED = 100.0  # times: a term this much smaller than another, in gradient, is as good as not there
COLLAPSED, INFLATED = 0.1, 10.0  # of a layer's mean weight scale at the start
MUCH_CLIPPED = 0.05  # share of a layer's input values beyond its range


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """One look at a run.

    Attributes:
        step: optimiser steps taken before.
        term_gradients: norm of the weighted gradient of each loss term, over all rounded weights and ranges.
        layer_gradients: norm of the whole gradient at each layer's rounded weight.
        scale_ratio: mean weight scale of each layer over its mean at the start.
        clipped_inputs: share of each layer's input values beyond its range.
        flags: sentences on what looks wrong, the gravest first; empty if nothing does.
    """

    step: int
    term_gradients: Mapping[str, float]
    layer_gradients: Mapping[str, float]
    scale_ratio: Mapping[str, float]
    clipped_inputs: Mapping[str, float]
    flags: tuple[str, ...]


class ClipCounter:
    """Counts input values beyond the range while a network runs."""

    def __init__(self, layers: Mapping[str, QuantLayer]) -> None:
        """Listen to the input quantizers of `layers` inside `listening`."""
        self._layers = {name: layer.activation for name, layer in layers.items()}
        self._outside = dict.fromkeys(self._layers, 0)
        self._seen = dict.fromkeys(self._layers, 0)

    def listening(self) -> Any:
        """A context manager; calls inside are counted."""
        return hooks(
            *(
                quantizer.register_forward_pre_hook(self._hook(name))
                for name, quantizer in self._layers.items()
                if quantizer.bits is not None
            )
        )

    def shares(self) -> dict[str, float]:
        """Share of clipped values by layer; layers that did not run are left out."""
        return {name: self._outside[name] / seen for name, seen in self._seen.items() if seen}

    def _hook(self, name: str) -> Any:
        def on_forward(quantizer: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(quantizer, ActivationQuantizer):
                inside = quantizer.inside(args[0])
                self._outside[name] += int(inside.numel() - inside.sum())
                self._seen[name] += inside.numel()

        return on_forward


def term_gradients(
    losses: Mapping[str, Tensor], weights: Mapping[str, float], inputs: Sequence[Tensor]
) -> tuple[dict[str, float], list[Tensor]]:
    """Norm of each term's weighted gradient, and the sum of these gradients.

    Args:
        losses: () each; a term without a graph, such as one on detached features, has norm 0.
        weights: by term.
        inputs: what is differentiated by; the losses share one graph.
    """
    total = [torch.zeros_like(tensor) for tensor in inputs]
    norms = {}
    for term, loss in losses.items():
        norms[term] = 0.0
        if not loss.requires_grad:
            continue
        gradients = torch.autograd.grad(weights[term] * loss, inputs, retain_graph=True, allow_unused=True)
        present = [gradient for gradient in gradients if gradient is not None]
        if present:
            norms[term] = float(torch.stack([gradient.square().sum() for gradient in present]).sum().sqrt())
        total = [
            sum_so_far if gradient is None else sum_so_far + gradient
            for sum_so_far, gradient in zip(total, gradients, strict=True)
        ]
    return norms, total


def flags_of(
    term_norms: Mapping[str, float], scale_ratio: Mapping[str, float], clipped: Mapping[str, float]
) -> tuple[str, ...]:
    """Say what looks wrong, in sentences."""
    flags = [
        f"The {term} loss has no gradient: it trains nothing."
        for term, norm in term_norms.items()
        if norm == 0
    ]
    alive = {term: norm for term, norm in term_norms.items() if norm > 0}
    if alive:
        loudest = max(alive, key=lambda term: alive[term])
        flags += [
            f"The {loudest} loss drowns the {term} loss: its gradient is {alive[loudest] / norm:.0f} times "
            f"as large. Lower the {loudest} weight or raise the {term} weight."
            for term, norm in alive.items()
            if alive[loudest] > DROWNED * norm
        ]
    for name, ratio in scale_ratio.items():
        if not COLLAPSED <= ratio <= INFLATED:
            word = "collapsed" if ratio < COLLAPSED else "grew"
            flags.append(
                f"The weight scales of {name} {word} to {ratio:.3g} of their start: "
                "lower their learning rate."
            )
    worst = max(clipped, key=lambda name: clipped[name], default=None)
    if worst is not None and clipped[worst] > MUCH_CLIPPED:
        count = sum(share > MUCH_CLIPPED for share in clipped.values())
        flags.append(
            f"{count} layers clip more than {MUCH_CLIPPED:.0%} of their inputs, most of all {worst} "
            f"({clipped[worst]:.0%}): more activation bits, or longer training of the ranges."
        )
    return tuple(flags)
