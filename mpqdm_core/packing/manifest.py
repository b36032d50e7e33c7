"""The manifest of a packed model: what it is, how its tensors are to be read, and where it comes from.

JSON, inside the metadata of the denoiser's safetensors file and, indented, beside it. docs/packed-format.md
describes every entry.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mpqdm_core.allocation.plan import FORMAT_VERSION as PLAN_VERSION
from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.bit_report import BitItem, BitReport, ExemptLayer
from mpqdm_core.denoiser import LayerSpec, SamplerSettings
from mpqdm_core.errors import LoadError, MpqdmError
from mpqdm_core.model_files import check_safetensors
from mpqdm_core.packing.packed_weight import ChannelGroup, WeightLayout
from mpqdm_core.packing.rounding import SCALE_TYPES, ScaleType
from mpqdm_core.quant_settings import QuantSettings

FORMAT = "mpqdm-packed"
FORMAT_VERSION = 1
METADATA_KEY = "mpqdm"
MANIFEST_FILE = "mpqdm.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSpec:
    """How one packed layer is stored."""

    layout: WeightLayout
    bias: bool
    prescale: bool
    activation_bits: int | None  # None: its inputs are at full precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """Everything about a packed model that is no tensor."""

    name: str
    family: str
    layers: tuple[LayerSpec, ...]  # in running order, exempt ones included
    packed: Mapping[str, PackedSpec]  # by layer name
    plan: BitPlan
    settings: QuantSettings
    timesteps: tuple[int, ...]  # of the activation scales; empty: activations are at full precision
    scale_dtype: ScaleType
    sampler: SamplerSettings
    num_classes: int | None  # None: unconditional
    class_names: tuple[str, ...]
    bit_report: BitReport
    source_hash: str  # of the full-precision model
    calibration_hash: str
    content_hash: str  # of the model in the file
    tensors_sha256: str = ""
    licence: str | None = None  # of the source model
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, int]:
        """Input channels of every layer by name."""
        return {layer.name: layer.in_channels for layer in self.layers}

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model": {
                "name": self.name,
                "family": self.family,
                "licence": self.licence,
                "source_hash": self.source_hash,
                "content_hash": self.content_hash,
                "sampler": asdict(self.sampler),
                "num_classes": self.num_classes,
                "class_names": list(self.class_names),
            },
            "scale_dtype": self.scale_dtype,
            "timesteps": list(self.timesteps),
            "tensors_sha256": self.tensors_sha256,
            "layers": [self._layer(spec) for spec in self.layers],
            "plan": {"settings": self.plan.settings.as_dict(), "content_hash": self.plan.content_hash},
            "settings": self.settings.as_dict(),
            "calibration_hash": self.calibration_hash,
            "recipe": dict(self.recipe),
            "metrics": dict(self.metrics),
            "bit_report": asdict(self.bit_report),
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], source: str) -> Manifest:
        """Read what `as_dict` returned.

        Args:
            entries: JSON values.
            source: the file, for errors.

        Raises:
            LoadError: of a newer version, no such manifest, or damaged.
        """
        check_version(entries, source)
        try:
            model, scale_dtype = entries["model"], entries["scale_dtype"]
            if scale_dtype not in SCALE_TYPES:
                raise ValueError(f"scale_dtype {scale_dtype!r}")
            return cls(
                name=model["name"],
                family=model["family"],
                licence=model["licence"],
                source_hash=model["source_hash"],
                content_hash=model["content_hash"],
                sampler=SamplerSettings(**model["sampler"]),
                num_classes=model["num_classes"],
                class_names=tuple(model["class_names"]),
                scale_dtype=scale_dtype,
                timesteps=tuple(int(value) for value in entries["timesteps"]),
                tensors_sha256=entries["tensors_sha256"],
                layers=tuple(_read_spec(entry) for entry in entries["layers"]),
                packed={e["name"]: _read_packed(e) for e in entries["layers"] if "groups" in e},
                plan=_read_plan(entries["layers"], entries["plan"]),
                settings=QuantSettings.from_dict(entries["settings"]),
                calibration_hash=entries["calibration_hash"],
                recipe=entries["recipe"],
                metrics=entries["metrics"],
                bit_report=_read_report(entries["bit_report"]),
            )
        except (MpqdmError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise LoadError(
                f"the manifest of {source} is damaged ({error!r}); export the model again"
            ) from error

    def _layer(self, spec: LayerSpec) -> dict[str, Any]:
        shape = [spec.out_channels, spec.in_channels // spec.groups, *spec.kernel]
        entry: dict[str, Any] = {
            "name": spec.name,
            "shape": shape,
            "bias": spec.parameters > math.prod(shape),
            "macs": spec.macs,
        }
        if spec.groups > 1:
            entry["conv_groups"] = spec.groups
        if spec.exempt is None:
            entry["bits"] = "".join(map(str, self.plan.layer_bits(spec.name)))
        else:
            entry |= {"exempt": spec.exempt, "reason": spec.reason, "input_headroom": spec.input_headroom}
        packed = self.packed.get(spec.name)
        if packed is not None:
            groups = [[group.bits, group.grid, group.channels] for group in packed.layout.groups]
            entry |= {"groups": groups, "prescale": packed.prescale}
            entry |= {"activation_bits": packed.activation_bits}
        return entry


def check_version(entries: Mapping[str, Any], source: str) -> None:
    """Refuse what is no manifest of a version that can be read.

    Raises:
        LoadError: it is not.
    """
    version = entries.get("version")
    if entries.get("format") != FORMAT or not isinstance(version, int):
        raise LoadError(f"{source} is not a packed model of format {FORMAT}")
    if version > FORMAT_VERSION:
        raise LoadError(
            f"{source} is a packed model of format {version}, this version reads up to {FORMAT_VERSION}: "
            "update mpqdm-explorer"
        )


def read_manifest(path: Path) -> Manifest:
    """Read the manifest out of a safetensors file.

    Raises:
        LoadError: the file is missing, cut short, of a newer version, or no packed model.
    """
    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as archive:
            text = (archive.metadata() or {}).get(METADATA_KEY)
        entries = {} if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path} cannot be read ({error}); copy or export it again") from error
    if not isinstance(entries, dict):
        raise LoadError(f"the manifest of {path} is damaged (it is no JSON object); export the model again")
    return Manifest.from_dict(entries, str(path))


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def plan_matches(plan: BitPlan, name: str, bits: Tensor) -> bool:
    """Whether the plan and the packed weight of a layer say the same."""
    return name in plan.layer_names and np.array_equal(plan.layer_bits(name), bits.cpu().numpy())


def _read_spec(entry: Mapping[str, Any]) -> LayerSpec:
    shape = [int(axis) for axis in entry["shape"]]
    groups = int(entry.get("conv_groups", 1))
    return LayerSpec(
        name=entry["name"],
        kind="linear" if len(shape) == 2 else "conv",
        out_channels=shape[0],
        in_channels=shape[1] * groups,
        kernel=tuple(shape[2:]),
        groups=groups,
        weights_per_channel=math.prod(shape[1:]),
        parameters=math.prod(shape) + (shape[0] if entry["bias"] else 0),
        macs=entry["macs"],
        exempt=entry.get("exempt"),
        reason=entry.get("reason", ""),
        input_headroom=entry.get("input_headroom", 1.0),
    )


def _read_packed(entry: Mapping[str, Any]) -> PackedSpec:
    groups = tuple(
        ChannelGroup(bits=int(bits), grid=grid, channels=int(channels))
        for bits, grid, channels in entry["groups"]
    )
    return PackedSpec(
        layout=WeightLayout(shape=tuple(int(axis) for axis in entry["shape"]), groups=groups),
        bias=bool(entry["bias"]),
        prescale=bool(entry["prescale"]),
        activation_bits=entry["activation_bits"],
    )


def _read_plan(layers: Sequence[Mapping[str, Any]], entries: Mapping[str, Any]) -> BitPlan:
    """The plan, whose bits stand with the layers."""
    planned = [layer for layer in layers if "bits" in layer]
    document = {
        "version": PLAN_VERSION,
        "settings": entries["settings"],
        "layers": [
            {
                "name": layer["name"],
                "weights_per_channel": math.prod(layer["shape"][1:]),
                "bits": layer["bits"],
            }
            for layer in planned
        ],
    }
    plan = BitPlan.from_json(json.dumps(document))
    if plan.content_hash != entries["content_hash"]:
        raise ValueError("the bits are not those of the plan's hash")
    return plan


def _read_report(entries: Mapping[str, Any]) -> BitReport:
    items = tuple(BitItem(**item) for item in entries["items"])
    exempt = tuple(ExemptLayer(**layer) for layer in entries["exempt"])
    return BitReport(**{**entries, "items": items, "exempt": exempt})
