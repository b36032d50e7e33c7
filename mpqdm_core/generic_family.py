"""Any other network of diffusers: analysed, allocated and rounded from its weights, but not drawn.

Drawing takes a pipeline that is known here; weights do not. For a folder of any pipeline, `open_stored` lists
its layers, `stored_outlier_stats` and `stored_error_table` measure them, `allocate` makes a plan, and what is
here carries the plan out. Linear layers and 2-D convolutions are rounded, with groups or without;
everything else, and what is exempt by name, stays as it is. Inputs stay in full precision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.errors import DataError, LoadError
from mpqdm_core.layers import quantized_twin
from mpqdm_core.loading import load_network
from mpqdm_core.model_files import read_json
from mpqdm_core.progress import Report, silent
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import replace_module
from mpqdm_core.recording import replica
from mpqdm_core.stored_weights import DENOISERS
from mpqdm_core.strict_json import shown
from mpqdm_core.weights import fit_weight


def open_network(source: str | Path) -> nn.Module:
    """Load the network of a folder, of whatever class of diffusers its configuration names.

    Args:
        source: a pipeline's folder, or the folder of its unet or transformer.

    Raises:
        LoadError: there is none, its class is no model of diffusers, or its files are damaged.
    """
    folder = Path(source).expanduser().resolve()
    if not (folder / "config.json").is_file():
        found = [name for name in DENOISERS if (folder / name / "config.json").is_file()]
        if not found:
            raise LoadError(f"{folder} holds no network: give a folder with a config.json and safetensors")
        folder = folder / found[0]
    name = read_json(folder, "config.json").get("_class_name")
    cls: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, diffusers.ModelMixin)):
        raise LoadError(f"{folder} holds a {shown(name)}, which is no model of the installed diffusers")
    network: nn.Module = load_network(folder.parent, folder.name, cls)
    return network.eval().requires_grad_(False)


def quantize_weights(
    network: nn.Module, plan: BitPlan, settings: QuantSettings | None = None, report: Report = silent
) -> nn.Module:
    """Round the weights of the layers in a plan; a copy, which shares all other weights with the original.

    Args:
        network: full precision; not touched.
        plan: from `allocate` on the network's `stored_error_table`.
        settings: grid and range search, as the table was measured with; None takes the defaults.
        report: told every layer; may raise `Cancelled`.

    Raises:
        DataError: the plan is of another network.
        SettingsError: a layer is of a kind that is not rounded.
        Cancelled: raised by `report`.
    """
    settings = settings or QuantSettings()
    modules = dict(network.named_modules())
    copied = replica(network)
    for done, name in enumerate(plan.layer_names):
        report(done, len(plan.layer_names), f"rounding {name}")
        bits = torch.from_numpy(plan.layer_bits(name).astype("int64"))
        layer = modules.get(name)
        if layer is None or len(bits) != len(layer.get_parameter("weight")):
            raise DataError(f"the bit plan is of another network: {name} is missing or has other channels")
        weight = layer.get_parameter("weight").detach().float()
        params = fit_weight(weight, bits, grid=settings.grid, exponent=settings.range_exponent)
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        twin = quantized_twin(layer, params, ActivationQuantizer(channel_axis=axis, prescale=None))
        twin.freeze_()
        replace_module(copied, name, twin)
    report(len(plan.layer_names), len(plan.layer_names), "rounded")
    return copied
