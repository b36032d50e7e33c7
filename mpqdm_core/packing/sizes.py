"""What a packed file is made of, byte for byte."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mpqdm_core.denoiser import LayerSpec
from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import WEIGHTS_FILE
from mpqdm_core.packing.manifest import Manifest, read_manifest
from mpqdm_core.packing.registration import find_packed
from mpqdm_core.packing.rounding import scale_type
from mpqdm_core.packing.tensors import byte_parts, scale_parts, stored_tensors

_ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
EXEMPT_LAYERS = "exempt layers"
OTHERS = "biases, norms, embeddings"
OVERHEAD = "header and manifest"
KINDS = {
    "weight_packed": "quantized weights",
    "weight_scale": "weight scales",
    "weight_zero": "weight zero-points",
    "weight_map": "bits of each channel",
    "activation.prescale": "pre-scale factors",
    "activation.scale": "activation ranges by timestep",
    "activation.zero_point": "activation ranges by timestep",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeItem:
    """One line of the account."""

    name: str
    bytes: int
    of_quantized_layers: bool  # counts towards the effective bits


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSize:
    """One layer of the file."""

    name: str
    bits: Mapping[int, int]  # bit-width -> output channels; empty: stored in full precision
    activation_bits: int | None  # None: its inputs are at full precision
    bytes: int  # weight and tables, the bias aside
    bytes_full_precision: int  # the weight in single precision


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedFolder:
    """An exported model as it lies on the disk."""

    folder: Path
    file: Path  # of the denoiser
    manifest: Manifest
    items: tuple[SizeItem, ...]  # what the denoiser's file is made of, in bytes
    file_bytes: int  # of the denoiser's file, their sum

    @property
    def content_hash(self) -> str:
        """Hash of the model that loading it gives."""
        return self.manifest.content_hash

    @property
    def bits_per_weight(self) -> float:
        """Bits on the disk per weight of the quantized layers, their tables included."""
        return 8 * sum(item.bytes for item in self.items if item.of_quantized_layers) / self.weights

    @property
    def bits_on_disk(self) -> float:
        """The same with the file's header and manifest, all of which count for the quantized layers here."""
        counted = sum(item.bytes for item in self.items if item.of_quantized_layers or item.name == OVERHEAD)
        return 8 * counted / self.weights

    @property
    def weights(self) -> int:
        """Weights of the quantized layers."""
        layers = [layer for layer in self.manifest.layers if layer.exempt is None]
        return sum(layer.out_channels * layer.weights_per_channel for layer in layers)

    @property
    def layers(self) -> tuple[LayerSize, ...]:
        """Every layer with its bits and bytes, in running order."""
        return tuple(_layer_size(layer, self.manifest) for layer in self.manifest.layers)


def inspect_packed(folder: str | Path) -> PackedFolder:
    """Look at an exported model without loading any weight.

    Args:
        folder: as `export_packed` wrote it; or the safetensors file of its denoiser alone.

    Raises:
        LoadError: the folder is missing, damaged, of a newer version, or no packed model.
    """
    source = Path(folder).expanduser()
    path = source if source.is_file() else find_packed(source) / WEIGHTS_FILE
    manifest = read_manifest(path)
    sizes = {}
    try:
        with safe_open(path, framework="pt") as archive:
            for name in archive.keys():  # noqa: SIM118 - it is no dictionary
                part = archive.get_slice(name)
                sizes[name] = math.prod(part.get_shape()) * _ITEM_BYTES[part.get_dtype()]
    except (SafetensorError, OSError, KeyError) as error:
        raise LoadError(f"{path} cannot be read ({error}); copy or export it again") from error
    _check_sizes(manifest, sizes, path)
    file_bytes = path.stat().st_size
    items = size_items(manifest, sizes, file_bytes)
    place = source.parent if source.is_file() else source
    return PackedFolder(folder=place, file=path, manifest=manifest, items=items, file_bytes=file_bytes)


def size_items(manifest: Manifest, sizes: Mapping[str, int], file_bytes: int) -> tuple[SizeItem, ...]:
    """Account for every byte of a denoiser's file.

    Args:
        manifest: of the model.
        sizes: bytes of the tensors of the file.
        file_bytes: its length.

    Returns:
        items whose bytes sum to `file_bytes`.
    """
    exempt = {layer.name for layer in manifest.layers if layer.exempt is not None}
    sums = dict.fromkeys((*KINDS.values(), EXEMPT_LAYERS, OTHERS), 0)
    scale_bytes = scale_type(manifest.scale_dtype).itemsize
    for name in manifest.packed:
        parts = byte_parts(name, manifest) | {
            part: length * scale_bytes for part, length in scale_parts(name, manifest).items()
        }
        for part, size in parts.items():
            sums[EXEMPT_LAYERS if name in exempt else KINDS[part]] += size
    stored = stored_tensors(manifest)
    for name, size in sizes.items():
        if name not in stored:
            layer, _, kind = name.rpartition(".")
            sums[EXEMPT_LAYERS if layer in exempt and kind == "weight" else OTHERS] += size
    sums[OVERHEAD] = file_bytes - sum(sums.values())
    of_layers = set(KINDS.values())
    return tuple(
        SizeItem(name=name, bytes=size, of_quantized_layers=name in of_layers) for name, size in sums.items()
    )


def _check_sizes(manifest: Manifest, sizes: Mapping[str, int], path: Path) -> None:
    for name, (length, dtype) in stored_tensors(manifest).items():
        if sizes.get(name) != length * dtype.itemsize:
            raise LoadError(
                f"{name} of {path} has {sizes.get(name, 'no')} bytes where its manifest says "
                f"{length * dtype.itemsize}; copy or export it again"
            )
    if not any(layer.exempt is None for layer in manifest.layers):
        raise LoadError(f"{path} has no quantized layer: export a model whose plan quantizes some")


def _layer_size(layer: LayerSpec, manifest: Manifest) -> LayerSize:
    full = layer.out_channels * layer.weights_per_channel * _ITEM_BYTES["F32"]
    spec = manifest.packed.get(layer.name)
    if spec is None:
        return LayerSize(
            name=layer.name, bits={}, activation_bits=None, bytes=full, bytes_full_precision=full
        )
    bits: dict[int, int] = {}
    for group in spec.layout.groups:
        bits[group.bits] = bits.get(group.bits, 0) + group.channels
    scales = sum(scale_parts(layer.name, manifest).values()) * scale_type(manifest.scale_dtype).itemsize
    return LayerSize(
        name=layer.name,
        bits=dict(sorted(bits.items())),
        activation_bits=spec.activation_bits,
        bytes=sum(byte_parts(layer.name, manifest).values()) + scales,
        bytes_full_precision=full,
    )
