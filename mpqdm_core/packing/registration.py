"""Loading a packed denoiser the way diffusers does, and making `from_pretrained` know it.

Once registered, `from_pretrained` of an exported folder loads the packed denoiser, alone or in its pipeline,
and `save_pretrained` writes it again. diffusers loads quantized models through `accelerate` only; where that
is not installed, local folders of this format are loaded by `load_network` instead, which needs nothing more.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from diffusers.utils import is_accelerate_available
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import WEIGHTS_FILE, read_json
from mpqdm_core.packing.diffusers_quantizer import PackedConfig, PackedMethod, PackedQuantizer
from mpqdm_core.packing.manifest import hash_tensors
from mpqdm_core.packing.tensors import check_tensors, part_names


def load_network(
    cls: type[Any], folder: Path, *, config: PackedConfig | None = None, dtype: torch.dtype | None = None
) -> Any:
    """Load a packed denoiser from a local folder, without accelerate.

    Args:
        cls: the diffusers class of the network.
        folder: holds config.json and the weights.
        config: instead of the one in config.json.
        dtype: of everything that is not packed, and that weights are unpacked to; None: as it was saved.

    Raises:
        LoadError: the folder is damaged, of a newer version, or no packed denoiser.
    """
    entries = read_json(folder, "config.json")
    if config is None:
        config = PackedConfig(**_packed_entries(entries, folder))
    return build_packed(cls, entries, folder / WEIGHTS_FILE, config=config, dtype=dtype)


def build_packed(
    cls: type[Any],
    entries: Mapping[str, Any],
    path: Path,
    *,
    config: PackedConfig,
    dtype: torch.dtype | None = None,
) -> Any:
    """Build a network and fill it with the packed weights of one file.

    Args:
        cls: the diffusers class of the network.
        entries: its configuration.
        path: the safetensors file.
        config: how the weights are used.
        dtype: see `load_network`.

    Raises:
        LoadError: the file is damaged, of a newer version, or of another network.
    """
    quantizer = PackedQuantizer(config)
    quantizer.read(path)
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{path} cannot be read ({error}); copy or export it again") from error
    network = build(cls, {**entries, "quantization_config": config}, quantizer.preprocess_model)
    check_tensors(tensors, network.state_dict(), quantizer.loaded, str(path))
    if hash_tensors(tensors) != quantizer.loaded.tensors_sha256:
        raise LoadError(
            f"the tensors of {path} are not those its manifest describes; copy or export it again"
        )
    state = quantizer.maybe_update_state_dict(dict(tensors))
    if quantizer.update_torch_dtype(dtype) is not None:
        parts = part_names(quantizer.loaded)
        state = {name: value if name in parts else value.to(dtype) for name, value in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    quantizer.postprocess_model(network)
    network.hf_quantizer = quantizer
    return network.eval().requires_grad_(False)


def build(cls: type[Any], config: Mapping[str, Any], change: Any = None) -> Any:
    """Build a network without weights; buffers that no file holds are computed."""
    with torch.device("meta"):
        network = cls.from_config(dict(config))
        if change is not None:
            change(network)
    saved = network.state_dict().keys()
    computed = [name for name, buffer in network.named_buffers() if name not in saved and buffer.is_meta]
    if computed:
        whole = dict(cls.from_config(dict(config)).named_buffers())
        for name in computed:
            owner, _, kind = name.rpartition(".")
            network.get_submodule(owner)._buffers[kind] = whole.get(name)
    return network


def is_packed(folder: Path) -> bool:
    """Whether a local folder holds a packed denoiser."""
    if not (folder / "config.json").is_file():
        return False
    try:
        _packed_entries(read_json(folder, "config.json"), folder)
    except LoadError:
        return False
    return True


def find_packed(folder: Path) -> Path:
    """The subfolder of a model folder that holds its packed denoiser.

    Raises:
        LoadError: there is none.
    """
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder}")
    found = [part for part in sorted(folder.iterdir()) if is_packed(part)]
    if not found:
        raise LoadError(f"{folder} holds no packed denoiser; write one with export_packed")
    return found[0]


def register() -> None:
    """Make diffusers know packed models; a second call changes nothing."""
    AUTO_QUANTIZATION_CONFIG_MAPPING[PackedMethod.MPQDM.value] = PackedConfig
    AUTO_QUANTIZER_MAPPING[PackedMethod.MPQDM.value] = PackedQuantizer
    original = ModelMixin.from_pretrained.__func__
    if getattr(original, "loads_packed", False):
        return

    def from_pretrained(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        folder = Path(os.fspath(source or ""), kwargs.get("subfolder") or "")
        if is_accelerate_available() or not is_packed(folder):
            return original(cls, *args, **kwargs)
        network = load_network(cls, folder, dtype=kwargs.get("dtype") or kwargs.get("torch_dtype"))
        return (network, _NOTHING_WRONG) if kwargs.get("output_loading_info") else network

    functools.update_wrapper(from_pretrained, original)
    from_pretrained.loads_packed = True  # type: ignore[attr-defined]
    ModelMixin.from_pretrained = classmethod(from_pretrained)


_NOTHING_WRONG: Mapping[str, list[str]] = {
    "missing_keys": [],
    "unexpected_keys": [],
    "mismatched_keys": [],
    "error_msgs": [],
}


def _packed_entries(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    entries = config.get("quantization_config")
    if not isinstance(entries, dict) or entries.get("quant_method") != PackedMethod.MPQDM.value:
        raise LoadError(f"{folder} holds no packed denoiser: its config.json names no such quantization")
    return entries
