"""Packed models in diffusers' own words: a quantization config and a quantizer."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from diffusers.utils import is_accelerate_available
from torch import Tensor, nn

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.packing.manifest import (
    FORMAT_VERSION,
    METADATA_KEY,
    Manifest,
    hash_tensors,
    read_manifest,
)
from mpqdm_core.packing.network import (
    finish_,
    put_packed_layers_,
    set_mode,
)
from mpqdm_core.packing.packed_layers import MODES, Mode
from mpqdm_core.packing.tensors import memory_names, part_names, to_file, to_memory
from mpqdm_core.packing.unpack_cache import DEFAULT_CACHE_MIB


class PackedMethod(str, Enum):  # noqa: UP042 - diffusers looks it up as a plain string and reads its value
    """The name of this method among diffusers' quantization methods."""

    MPQDM = "mpqdm"


class PackedConfig(QuantizationConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """The `quantization_config` of a packed denoiser: the manifest in its weights file says the rest."""

    def __init__(
        self,
        format_version: int = FORMAT_VERSION,
        mode: Mode = "packed",
        cache_mib: int = DEFAULT_CACHE_MIB,
        **_unknown: Any,
    ) -> None:
        """Choose how a loaded model is used.

        Args:
            format_version: of the file.
            mode: see `PackedLayer.mode`.
            cache_mib: limit of the cache of unpacked weights.
            _unknown: entries of the JSON object that mean nothing here, such as `quant_method`.

        Raises:
            LoadError: the format is newer.
            SettingsError: there is no such mode, or the cache is below 0.
        """
        if format_version > FORMAT_VERSION:
            raise LoadError(
                f"config.json describes a packed model of format {format_version}, this version reads up to "
                f"{FORMAT_VERSION}: update mpqdm-explorer"
            )
        if mode not in MODES:
            raise SettingsError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if cache_mib < 0:
            raise SettingsError(f"cache_mib must be 0 or more, got {cache_mib}")
        self.quant_method = PackedMethod.MPQDM
        self.format_version = format_version
        self.mode = mode
        self.cache_mib = cache_mib

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.__dict__, "quant_method": self.quant_method.value}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return JSON values; short enough to show all of them."""
        return self.to_dict()


class PackedQuantizer(DiffusersQuantizer):  # type: ignore[misc]  # diffusers is untyped
    """Takes part in diffusers' loading and saving of a packed denoiser."""

    requires_calibration = True  # it loads what was quantized before, and quantizes nothing itself

    def __init__(self, quantization_config: PackedConfig, **kwargs: Any) -> None:
        """Start without a manifest, which comes with the file."""
        super().__init__(quantization_config, **kwargs)
        self.manifest: Manifest | None = None
        self.source = ""
        self._parts: set[str] = set()
        self._dtype: torch.dtype | None = None

    def read(self, path: Path) -> None:
        """Read the manifest of the file that is about to be loaded.

        Raises:
            LoadError: it cannot be read.
        """
        self.manifest, self.source = read_manifest(path), str(path)
        self._parts = part_names(self.manifest)

    @property
    def loaded(self) -> Manifest:
        """The manifest.

        Raises:
            LoadError: no file has been read.
        """
        if self.manifest is None:
            raise LoadError("a packed model can only be loaded from its safetensors file")
        return self.manifest

    def validate_environment(self, *_args: Any, **_kwargs: Any) -> None:
        """Say what is missing before diffusers says something less clear.

        Raises:
            ImportError: accelerate is not installed.
        """
        if not is_accelerate_available():
            raise ImportError(
                "diffusers loads quantized models from the hub with accelerate only: install accelerate, or "
                "download the folder and load it from there"
            )

    def update_device_map(self, device_map: Any = None) -> Any:
        """Take a device map as it is.

        Raises:
            SettingsError: it leaves a part on the disk, where packed weights cannot be loaded to.
        """
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise SettingsError(
                "packed weights cannot be loaded straight to the disk: load the model to its devices, and "
                "offload it with accelerate.dispatch_model then"
            )
        return device_map

    def update_torch_dtype(self, torch_dtype: torch.dtype | None = None) -> torch.dtype | None:
        """Take note of the type asked for: weights will be unpacked to it."""
        self._dtype = torch_dtype
        return torch_dtype

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[Any]) -> list[str]:
        """Read the manifest out of the first file, and give the names that its tensors will have."""
        self.read(Path(checkpoint_files[0]))
        return memory_names(loaded_keys, self.loaded)

    def maybe_update_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cut the file's tensors into the parts that the network holds."""
        return to_memory(state_dict, self.loaded)

    def check_if_quantized_param(
        self, _model: Any, _value: Tensor, name: str, _state: Any, **_kwargs: Any
    ) -> bool:
        """Whether a tensor must keep its type whatever type the network is asked to have."""
        return name in self._parts

    def create_quantized_param(
        self, model: Any, _value: Tensor, name: str, device: Any, state_dict: Any, *_args: Any, **_kwargs: Any
    ) -> None:
        """Put a tensor of a packed layer in its place, in its own type."""
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        value = state_dict[name].to(device)
        parameter = kind in module._parameters
        setattr(module, kind, nn.Parameter(value, requires_grad=False) if parameter else value)

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, Tensor], safe_serialization: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Join the network's tensors as the file holds them, and say what they are."""
        if not safe_serialization:
            raise SettingsError("a packed model is saved as safetensors only: leave safe_serialization=True")
        tensors = to_file(state_dict, self.loaded)
        entries = self.loaded.as_dict() | {"tensors_sha256": hash_tensors(tensors)}
        return tensors, {METADATA_KEY: json.dumps(entries, separators=(",", ":"))}

    def _process_model_before_weight_loading(self, model: Any, **_kwargs: Any) -> None:
        put_packed_layers_(model, self.loaded, cache_mib=self.quantization_config.cache_mib)

    def _process_model_after_weight_loading(self, model: Any, **_kwargs: Any) -> None:
        finish_(model, self.loaded, self.source)
        set_mode(model, self.quantization_config.mode, self._dtype or torch.float32)

    @property
    def is_serializable(self) -> bool:
        """It can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """It cannot be trained: fine-tune before exporting."""
        return False
