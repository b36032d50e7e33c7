"""LoRA adapters of `peft` on top of packed layers, where `peft` is installed."""

from __future__ import annotations

import importlib
from typing import Any

from mpqdm_core.errors import SettingsError
from mpqdm_core.packing.packed_layers import PackedLinear


def allow_lora(config: Any) -> Any:
    """Let a `peft.LoraConfig` target packed linear layers: the adapter is added to what they compute.

    The packed weight stays as it is, so that such an adapter cannot be merged into it. Packed convolutions
    cannot be targets: peft makes its own layers by calling the class of theirs.

    Args:
        config: changed in place.

    Returns:
        the config, for `peft.inject_adapter_in_model` or a network's `add_adapter`.

    Raises:
        SettingsError: peft is not installed, or is too old or too new to be told of other layers.
    """
    try:
        layers: Any = importlib.import_module("peft.tuners.lora.layer")
        config._register_custom_module({PackedLinear: _unmergeable(layers.Linear)})
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"LoRA on packed layers needs a peft.LoraConfig of a peft that takes custom modules ({error}); "
            "or merge the adapter before exporting"
        ) from error
    return config


def _unmergeable(cls: type[Any]) -> type[Any]:
    """A LoRA layer that refuses to write into a weight that is unpacked anew at every use."""

    def merge(self: Any, *_args: Any, **_kwargs: Any) -> None:
        raise SettingsError(
            "an adapter cannot be merged into packed weights: leave it unmerged, or merge it into the "
            "full-precision model, quantize and export again"
        )

    return type(f"Packed{cls.__name__}", (cls,), {"merge": merge})
