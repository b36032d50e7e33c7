"""Exporting a quantized model as a diffusers folder with packed weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mpqdm_core.denoiser import Denoiser
from mpqdm_core.errors import SettingsError
from mpqdm_core.model_files import WEIGHTS_FILE
from mpqdm_core.packing.diffusers_quantizer import PackedConfig
from mpqdm_core.packing.manifest import MANIFEST_FILE, METADATA_KEY, Manifest, PackedSpec, hash_tensors
from mpqdm_core.packing.rounding import RoundedLayer, ScaleType, round_layer, scale_type
from mpqdm_core.packing.sizes import PackedFolder, inspect_packed
from mpqdm_core.packing.tensors import rounded_state, to_file
from mpqdm_core.progress import Report, silent
from mpqdm_core.quantization import QuantizedDenoiser
from mpqdm_core.saved_configs import forget_origins

CONFIG_FILE, CARD_FILE = "config.json", "README.md"


def export_packed(
    quantized: QuantizedDenoiser,
    folder: str | Path,
    *,
    scale_dtype: ScaleType = "float16",
    metrics: Mapping[str, float] | None = None,
    licence: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> PackedFolder:
    """Write a diffusers folder whose denoiser is packed; a crash half-way leaves an earlier export as it was.

    Args:
        quantized: frozen, or a fine-tuned student: corrections are merged.
        folder: new, empty, or an earlier export, which is replaced.
        scale_dtype: precision of scales and pre-scale factors. With float16 they are rounded first and the
            codes computed from the rounded ones; with float32 a frozen model is stored as it is.
        metrics: figures of merit to keep in the manifest.
        licence: of the full-precision model.
        recipe: how it was made, JSON values.
        report: told every layer; may raise `Cancelled`.

    Raises:
        SettingsError: the folder holds something else, or the model has no pipeline.
        DataError: a scale does not fit float16, or a layer's weight is not on its levels.
        Cancelled: raised by `report`.
    """
    target = Path(folder)
    if quantized.denoiser.pipeline is None:
        raise SettingsError(f"{quantized.denoiser.name} has no pipeline: there is no folder to write it to")
    with _Staging(target) as staging:
        manifest, tensors = _pack(quantized, scale_dtype, report)
        manifest = replace(manifest, licence=licence, recipe=dict(recipe or {}), metrics=dict(metrics or {}))
        place = _write_parts(quantized.denoiser, staging)
        _write_network(quantized.denoiser.network, manifest, tensors, staging / place)
        (staging / CARD_FILE).write_text(_card(quantized, manifest, place), encoding="utf-8")
    return inspect_packed(target)


def measure_packed(
    quantized: QuantizedDenoiser, *, scale_dtype: ScaleType = "float16", report: Report = silent
) -> PackedFolder:
    """How large the denoiser's file would be, byte for byte: it is written, looked at and deleted.

    Args:
        quantized: see `export_packed`.
        scale_dtype: see `export_packed`.
        report: told every layer; may raise `Cancelled`.

    Returns:
        an account of a file that is no longer there.

    Raises:
        DataError: see `export_packed`.
        Cancelled: raised by `report`.
    """
    manifest, tensors = _pack(quantized, scale_dtype, report)
    with tempfile.TemporaryDirectory(prefix="mpqdm-measure-") as folder:
        place = Path(folder) / "denoiser"
        _write_network(quantized.denoiser.network, manifest, tensors, place)
        return inspect_packed(place / WEIGHTS_FILE)


def _pack(
    quantized: QuantizedDenoiser, scale_dtype: ScaleType, report: Report
) -> tuple[Manifest, dict[str, Tensor]]:
    """Round and pack every layer; return the manifest and the tensors of the file."""
    scale_type(scale_dtype)
    layers = quantized.layers
    rounded: dict[str, RoundedLayer] = {}
    for done, (name, layer) in enumerate(layers.items()):
        report(done, len(layers), f"packing {name}")
        rounded[name] = round_layer(name, layer, scale_dtype)
    report(len(layers), len(layers), "writing")
    manifest = _describe(quantized, rounded, scale_dtype)
    tensors = to_file(_state(quantized, rounded), manifest)
    digest = hash_tensors(tensors)
    exact = scale_dtype == "float32" and all(layer.frozen for layer in layers.values())
    content_hash = quantized.content_hash if exact else _hash(quantized.content_hash, digest)
    return replace(manifest, tensors_sha256=digest, content_hash=content_hash), tensors


class _Staging:
    """A folder beside the target that takes its place when everything in it is written."""

    def __init__(self, target: Path) -> None:
        """Look at the target.

        Raises:
            SettingsError: it holds something that is no packed model.
        """
        self.target = target
        self.partial = target.with_name(target.name + ".part")
        self.earlier = target.with_name(target.name + ".old")
        if self.earlier.exists() and not target.exists():
            self.earlier.rename(target)  # a crash between the two renames of `__exit__`
        occupied = target.is_file() or (target.is_dir() and any(target.iterdir()))
        if occupied and not any(target.glob(f"*/{MANIFEST_FILE}")):
            raise SettingsError(f"{target} exists and is no packed model: choose another folder")

    def __enter__(self) -> Path:
        """Make the folder."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Move the folder to its place, or remove it after an error."""
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        if self.target.exists():
            shutil.rmtree(self.earlier, ignore_errors=True)
            self.target.rename(self.earlier)
        self.partial.rename(self.target)
        shutil.rmtree(self.earlier, ignore_errors=True)


def _describe(
    quantized: QuantizedDenoiser, rounded: Mapping[str, RoundedLayer], scale_dtype: ScaleType
) -> Manifest:
    denoiser, layers = quantized.denoiser, quantized.layers
    clocks = [layer.activation.clock for layer in layers.values() if layer.activation.clock is not None]
    packed = {
        name: PackedSpec(
            layout=rounded[name].weight.layout,
            bias=layer.bias is not None,
            prescale=rounded[name].prescale is not None,
            activation_bits=layer.activation.bits,
        )
        for name, layer in layers.items()
    }
    return Manifest(
        name=denoiser.name,
        family=denoiser.family,
        layers=denoiser.layers,
        packed=packed,
        plan=quantized.plan,
        settings=quantized.settings,
        timesteps=clocks[0].timesteps if clocks else (),
        scale_dtype=scale_dtype,
        sampler=denoiser.sampler,
        num_classes=denoiser.num_classes,
        class_names=denoiser.class_names,
        bit_report=quantized.bit_report,
        source_hash=quantized.source_hash,
        calibration_hash=quantized.calibration_hash,
        content_hash=quantized.content_hash,
    )


def _state(quantized: QuantizedDenoiser, rounded: Mapping[str, RoundedLayer]) -> dict[str, Tensor]:
    """The network's tensors, those of quantized layers in packed form."""
    layers = quantized.layers
    state = {
        name: tensor.detach().cpu()
        for name, tensor in quantized.denoiser.network.state_dict().items()
        if not any(name.startswith(f"{layer}.") for layer in layers)
    }
    for name, layer in layers.items():
        state |= rounded_state(name, rounded[name], None if layer.bias is None else layer.bias.cpu())
    return state


def _write_parts(denoiser: Denoiser, folder: Path) -> str:
    """Write everything but the denoiser, as diffusers does; return the denoiser's place."""
    place = ""
    denoiser.pipeline.save_config(folder)
    for name, part in denoiser.pipeline.components.items():
        if part is denoiser.network:
            place = name
        elif part is not None:
            part.save_pretrained(folder / name)
    forget_origins(folder)
    return place


def _write_network(network: Any, manifest: Manifest, tensors: Mapping[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    config = json.loads(network.to_json_string())
    config["quantization_config"] = PackedConfig().to_dict()
    config.pop("_name_or_path", None)
    _write_text(folder / CONFIG_FILE, config)
    _write_text(folder / MANIFEST_FILE, manifest.as_dict())
    text = json.dumps(manifest.as_dict(), separators=(",", ":"))
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    path = folder / WEIGHTS_FILE
    save_file(contiguous, path, metadata={"format": "pt", METADATA_KEY: text})
    with path.open("rb") as file:
        os.fsync(file.fileno())  # on the disk before the folder takes the place of an earlier one


def _card(quantized: QuantizedDenoiser, manifest: Manifest, place: str) -> str:
    """A model card: what it is, whose licence it has, and how to load it."""
    report = quantized.bit_report
    heading = f"---\nlicense: {manifest.licence}\n---\n" if manifest.licence else ""
    inputs = f"{report.activation_bits} bits" if report.activation_bits else "full precision"
    return f"""{heading}# {manifest.name}, quantized

{report.nominal_bits:.2f} bits per quantized weight, activations at {inputs}. Packed in the format
`mpqdm-packed` of MPQ-DM Explorer. Quantization is simulated: weights are unpacked to floating point when
used. What it was made from and how stands in `{place}/{MANIFEST_FILE}`.

```python
import mpqdm_core.packing  # registers the format with diffusers
from diffusers import {type(quantized.denoiser.network).__name__}

{place} = {type(quantized.denoiser.network).__name__}.from_pretrained("this folder", subfolder="{place}")
model = mpqdm_core.load_packed("this folder")  # the whole pipeline, with plan and settings
```
"""


def _write_text(path: Path, entries: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def _hash(*parts: str) -> str:
    return hashlib.sha256(":".join(parts).encode()).hexdigest()
