"""What a packed file is made of, byte for byte."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

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


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedFolder:
    """An exported model as it lies on the disk."""

    folder: Path
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
        layers = [layer for layer in self.manifest.layers if layer.exempt is None]
        weights = sum(layer.out_channels * layer.weights_per_channel for layer in layers)
        return 8 * sum(item.bytes for item in self.items if item.of_quantized_layers) / weights


def inspect_packed(folder: str | Path) -> PackedFolder:
    """Look at an exported model without loading any weight.

    Args:
        folder: as `export_packed` wrote it.

    Raises:
        LoadError: the folder is missing, damaged, of a newer version, or no packed model.
    """
    path = find_packed(Path(folder).expanduser()) / WEIGHTS_FILE
    manifest = read_manifest(path)
    sizes = {}
    try:
        with safe_open(path, framework="pt") as archive:
            for name in archive.keys():  # noqa: SIM118 - it is no dictionary
                part = archive.get_slice(name)
                sizes[name] = math.prod(part.get_shape()) * _ITEM_BYTES[part.get_dtype()]
    except (SafetensorError, OSError, KeyError) as error:
        raise LoadError(f"{path} cannot be read ({error}); copy or export it again") from error
    file_bytes = path.stat().st_size
    items = size_items(manifest, sizes, file_bytes)
    return PackedFolder(folder=Path(folder), manifest=manifest, items=items, file_bytes=file_bytes)


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
