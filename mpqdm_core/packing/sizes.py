"""What a packed file is made of, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mpqdm_core.packing.manifest import Manifest
from mpqdm_core.packing.rounding import scale_type
from mpqdm_core.packing.tensors import byte_parts, scale_parts, stored_tensors

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


def size_items(manifest: Manifest, tensors: Mapping[str, Tensor], file_bytes: int) -> tuple[SizeItem, ...]:
    """Account for every byte of a denoiser's file.

    Args:
        manifest: of the model.
        tensors: of the file.
        file_bytes: its length.

    Returns:
        items whose bytes sum to `file_bytes`.
    """
    exempt = {layer.name for layer in manifest.layers if layer.exempt is not None}
    sums = dict.fromkeys((*KINDS.values(), EXEMPT_LAYERS, OTHERS), 0)
    scale_bytes = scale_type(manifest.scale_dtype).itemsize
    for name in manifest.packed:
        sizes = byte_parts(name, manifest) | {
            part: length * scale_bytes for part, length in scale_parts(name, manifest).items()
        }
        for part, size in sizes.items():
            sums[EXEMPT_LAYERS if name in exempt else KINDS[part]] += size
    stored = stored_tensors(manifest)
    for name, tensor in tensors.items():
        if name not in stored:
            layer, _, kind = name.rpartition(".")
            sums[EXEMPT_LAYERS if layer in exempt and kind == "weight" else OTHERS] += tensor.nbytes
    sums[OVERHEAD] = file_bytes - sum(sums.values())
    of_layers = set(KINDS.values())
    return tuple(
        SizeItem(name=name, bytes=size, of_quantized_layers=name in of_layers) for name, size in sums.items()
    )
