"""Honest sizes: three numbers that are never mixed, nominal, effective and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mpqdm_core.bit_report import report_bits
from pages._html import Card
from pages._precomputed import LayerRow
from pages._work import quant_settings

MIB = 2.0**20
DEFAULT_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the account of bits needs of a model that is not loaded."""

    layers: tuple[LayerRow, ...]
    parameters: int

    @cached_property
    def quantizable_layers(self) -> tuple[LayerRow, ...]:
        """The layers that share the budget."""
        return tuple(layer for layer in self.layers if layer.exempt is None)

    @cached_property
    def exempt_layers(self) -> tuple[LayerRow, ...]:
        """The others."""
        return tuple(layer for layer in self.layers if layer.exempt is not None)


def size_cards(solved: Any) -> list[Card]:
    """Cards about bits and size of a solved budget; none while the facts are not known."""
    report = bit_report(solved)
    if report is None:
        return []
    full = report.bytes_full_precision / MIB
    return [
        Card(
            name="Effective weight bits",
            value=f"{report.effective_bits:.2f}",
            note="with scales, zero points, maps and pre-scaling",
        ),
        Card(
            name="Estimated file",
            value=f"{report.bytes_estimate / MIB:.2f} MiB",
            note=f"{report.model_bits:.2f} bits a parameter; float32: {full:.1f} MiB",
        ),
        Card(
            name="Exempt from the budget",
            value=f"{report.exempt_parameter_share:.1%}",
            note=f"of the parameters, {report.exempt_mac_share:.1%} of the MACs; "
            + ("chosen under More settings" if solved.changed else "listed on Model"),
        ),
    ]


def bit_report(solved: Any) -> Any | None:
    """Bit accounting of a solved budget, or None while it cannot be told."""
    work = solved.work
    if not work.layers or not work.parameters:
        return None
    facts: Any = ModelFacts(layers=solved.layers, parameters=work.parameters)
    settings = quant_settings(solved.table, solved.choice.activation_bits)
    steps = int(work.sampler.get("num_inference_steps", DEFAULT_STEPS))
    return report_bits(facts, solved.allocation.plan, settings, timesteps=steps)
