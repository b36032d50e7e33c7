"""Loading an exported folder as a quantized denoiser of this library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import LoadError, MpqdmError
from mpqdm_core.families import Family
from mpqdm_core.loading import BUILD_FAILURES, BUILD_LOCK, find_family
from mpqdm_core.loading import load_network as load_full_precision
from mpqdm_core.model_files import INDEX_FILE, WEIGHTS_FILE, check_safetensors, listed, read_json
from mpqdm_core.packing.diffusers_quantizer import PackedConfig
from mpqdm_core.packing.manifest import Manifest, read_manifest
from mpqdm_core.packing.network import set_mode
from mpqdm_core.packing.packed_layers import Mode
from mpqdm_core.packing.registration import build, build_packed, find_packed, load_network
from mpqdm_core.packing.unpack_cache import DEFAULT_CACHE_MIB
from mpqdm_core.prompted_loading import build_prompted
from mpqdm_core.quantization import QuantizedDenoiser


def load_packed(
    folder: str | Path,
    *,
    mode: Mode = "packed",
    dtype: torch.dtype = torch.float32,
    cache_mib: int = DEFAULT_CACHE_MIB,
) -> QuantizedDenoiser:
    """Load an exported model on the CPU; same plan, weights and pictures as the exported one.

    Args:
        folder: as `export_packed` wrote it.
        mode: `packed` unpacks weights at each use; `frozen` keeps them unpacked too, for speed.
        dtype: that weights are unpacked to; another than float32 changes the pictures by rounding.
        cache_mib: unpacked weights kept in mode `packed`.

    Raises:
        LoadError: the folder is missing, damaged, of a newer version, or no packed model.
        SettingsError: there is no such mode, or the cache is below 0.
    """
    config = PackedConfig(mode=mode, cache_mib=cache_mib)
    source = Path(folder).expanduser()
    packed = find_packed(source)
    index = read_json(source, INDEX_FILE)
    family = find_family(source, index)
    make = _build_prompted if family.prompted else _build
    pipeline = _guarded(source, partial(make, source, index, family, packed, config))
    pipeline.set_progress_bar_config(disable=True)
    network: Any = getattr(pipeline, family.component)
    if dtype != torch.float32:
        set_mode(network, mode, dtype)
    manifest: Manifest = network.hf_quantizer.loaded
    denoiser = Denoiser(
        name=manifest.name,
        family=family.name,
        pipeline=pipeline,
        network=network,
        layers=manifest.layers,
        sampler=manifest.sampler,
        num_classes=manifest.num_classes,
        class_names=manifest.class_names,
        content_hash=manifest.content_hash,
        source=str(folder),
        latents=None if family.latents is None else family.latents(pipeline),
    )
    return _quantized(denoiser, manifest)


def mismatch(manifest: Manifest, denoiser: Denoiser) -> str:
    """Why a packed model was not made from this full-precision model; empty if it was."""
    if manifest.source_hash == denoiser.content_hash:
        return ""
    theirs, ours = str(manifest.source_hash)[:8], denoiser.content_hash[:8]
    same = " of the same name" if manifest.name == denoiser.name else f", {manifest.name}"
    return (
        f"it was made from another model{same} (hash {theirs}) than {denoiser.name}, which is open ({ours})"
    )


def attach_packed(path: str | Path, denoiser: Denoiser, *, mode: Mode = "packed") -> QuantizedDenoiser:
    """Use the denoiser's file of an export with everything else from the full-precision model at hand.

    Only weights are taken from the file: configuration, decoder and schedule are those of `denoiser`, so that
    a file of somebody else needs no trust beyond its numbers.

    Args:
        path: the safetensors file.
        denoiser: the model it was made from; not touched.
        mode: see `load_packed`.

    Raises:
        LoadError: the file is damaged, or was made from another model.
    """
    file = Path(path)
    manifest = read_manifest(file)
    if reason := mismatch(manifest, denoiser):
        raise LoadError(f"{file.name} cannot be used here: {reason}")
    network: Any = denoiser.network
    make = partial(build_packed, type(network), dict(network.config), file, config=PackedConfig(mode=mode))
    packed = denoiser.with_network(_guarded(file, make), content_hash=manifest.content_hash)
    return _quantized(replace(packed, layers=manifest.layers), manifest)


def _quantized(denoiser: Denoiser, manifest: Manifest) -> QuantizedDenoiser:
    return QuantizedDenoiser(
        denoiser=denoiser,
        plan=manifest.plan,
        settings=manifest.settings,
        bit_report=manifest.bit_report,
        source_hash=manifest.source_hash,
        calibration_hash=manifest.calibration_hash,
    )


def _build(folder: Path, index: Mapping[str, Any], family: Family, packed: Path, config: PackedConfig) -> Any:
    """The pipeline of a family whose parts are all diffusers'."""
    built: dict[str, Any] = {}
    for part, classes in family.parts.items():
        name = part if part in index else family.alternatives.get(part, part)
        if part == "scheduler":
            built[part] = DDIMScheduler.from_config(read_json(folder, f"{name}/scheduler_config.json"))
            continue
        cls = _part_class(folder, index, name, classes)
        if name == packed.name:
            built[part] = load_network(cls, packed, config=config)
        else:
            built[part] = _load_part(cls, folder / name)
    _check_place(folder, family, packed)
    taken = inspect.signature(family.pipeline_class.__init__).parameters
    notes = {name: index[name] for name in taken if name in index and name not in built}
    return family.pipeline_class(**built, **notes)


def _build_prompted(
    folder: Path, index: Mapping[str, Any], family: Family, packed: Path, config: PackedConfig
) -> Any:
    """The pipeline of a family with text encoders and tokenizers."""

    def load_part(where: Path, name: str, cls: type[Any], _family: Family | None) -> Any:
        if name == packed.name:
            return load_network(cls, packed, config=config)
        return load_full_precision(where, name, cls)

    _check_place(folder, family, packed)
    return build_prompted(folder, index, family, load_part, BUILD_LOCK)


def _check_place(folder: Path, family: Family, packed: Path) -> None:
    if packed.name not in (family.component, family.alternatives.get(family.component)):
        raise LoadError(f"the packed denoiser of {folder} is {packed.name}, which its pipeline does not have")


def _part_class(
    folder: Path, index: Mapping[str, Any], name: str, classes: tuple[type[Any], ...]
) -> type[Any]:
    entry = index.get(name)
    for cls in classes:
        if entry == ["diffusers", cls.__name__]:
            return cls
    allowed = listed(cls.__name__ for cls in classes)
    raise LoadError(f"the {name} of {folder} is a {entry}; supported are diffusers' {allowed}")


def _load_part(cls: type[Any], folder: Path) -> Any:
    """Load a full-precision part from its safetensors file."""
    path = folder / WEIGHTS_FILE
    check_safetensors(path)
    part = build(cls, read_json(folder, "config.json"))
    part.load_state_dict(load_file(path), strict=True, assign=True)
    return part.eval().requires_grad_(False)


def _guarded(folder: Path, work: Callable[[], Any]) -> Any:
    """Run a step of loading; whatever goes wrong becomes one sentence."""
    try:
        return work()
    except MpqdmError as error:
        raise error if isinstance(error, LoadError) else LoadError(f"{folder} is damaged: {error}") from error
    except BUILD_FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{folder} cannot be built: {reason}; export the model again") from error
