"""The weights of a denoiser as they lie in safetensors files: listed from headers, read a few rows at a time.

Nothing is built from a configuration, so that a checkpoint larger than memory, or of a class that is not
known here, can be looked at. Layers are recognised by their tensors: "<name>.weight" with two axes is a
linear layer, with four a convolution; norms have one axis, tables of embeddings are told by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mpqdm_core.denoiser import Exemption, ExemptRule
from mpqdm_core.errors import LoadError
from mpqdm_core.exemptions import rules_for
from mpqdm_core.mapped_file import MappedFile
from mpqdm_core.model_files import INDEX_FILE, find_weights, listed, read_json
from mpqdm_core.safetensors_header import open_header

DENOISERS = ("transformer", "unet")  # folders of a pipeline that hold what is quantized
BLOCK_BYTES = 8 * 2**20  # of one read; large enough for any disk, small beside any limit on memory
TABLES = ("*embedding_table", "class_embedding", "*token_embedding", "*pos_embedding")
FLOATING = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
PARTS_IN_ORDER = (
    *("conv_in", "pos_embed", "x_embedder", "context_embedder", "time", "class", "add", "caption", "adaln"),
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "single_transformer_blocks"),
    *("norm_out", "conv_norm_out", "conv_out", "proj_out"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One linear or convolution layer in a file."""

    name: str
    kind: Literal["linear", "conv"]
    shape: tuple[int, ...]  # of the weight: (O, I) or (O, I / groups, kh, kw)
    dtype: torch.dtype
    path: Path
    begin: int  # first byte in the file
    changed_ns: int  # when the file was last written to, as it was listed
    exempt: Exemption | None
    reason: str  # why it is exempt; empty if it is not

    @property
    def out_channels(self) -> int:
        """O."""
        return self.shape[0]

    @property
    def weights_per_channel(self) -> int:
        """Elements of one output channel."""
        return self.elements // self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one output channel."""
        return self.weights_per_channel * self.dtype.itemsize

    @property
    def elements(self) -> int:
        """Weights of the layer."""
        return int(torch.Size(self.shape).numel())

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.elements * self.dtype.itemsize

    def weight(self) -> Tensor:
        """The whole weight, in the file's dtype.

        Raises:
            LoadError: the file cannot be read any more.
        """
        return self.read(range(self.out_channels))

    def parts(self, block_bytes: int = BLOCK_BYTES) -> Iterator[range]:
        """Output channels that are read together, in order."""
        height = max(1, block_bytes // self.row_bytes)
        for start in range(0, self.out_channels, height):
            yield range(start, min(start + height, self.out_channels))

    def read(self, channels: range) -> Tensor:
        """Some neighbouring output channels, (c, ...), in the file's dtype.

        Raises:
            LoadError: the file cannot be read any more, or was written to since it was listed.
        """
        with MappedFile(self.path, self.changed_ns) as file:
            return self.look(file, channels).clone()

    def look(self, file: MappedFile, channels: range) -> Tensor:
        """The same without a copy; to be looked at right away.

        Args:
            file: that at `path`.
            channels: without a gap.

        Raises:
            LoadError: the file was written to.
        """
        start = self.begin + channels.start * self.row_bytes
        content = file.bytes(start, len(channels) * self.row_bytes)
        if start % self.dtype.itemsize:  # the format allows it, processors do not like it
            content = content.clone()
        return content.view(self.dtype).view(len(channels), *self.shape[1:])


@dataclass(frozen=True, kw_only=True)
class StoredDenoiser:
    """The layers of a denoiser's files, in an order near the one in which they run."""

    source: Path
    class_name: str  # of the configuration beside the files; "" without one
    layers: tuple[StoredLayer, ...]
    nbytes: int  # of all files, other tensors included

    @property
    def quantizable_layers(self) -> tuple[StoredLayer, ...]:
        """The layers that share the bit budget."""
        return tuple(layer for layer in self.layers if layer.exempt is None)

    def layer(self, name: str) -> StoredLayer:
        """The layer of this name.

        Raises:
            LoadError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise LoadError(f"{self.source.name} holds no layer {name!r}")


def open_stored(source: str | Path, rules: tuple[ExemptRule, ...] | None = None) -> StoredDenoiser:
    """List the layers of a checkpoint without reading its weights.

    Args:
        source: a pipeline's folder, the folder of its unet or transformer, or one safetensors file.
        rules: which layers are exempt; None takes those for the kind of network.

    Raises:
        LoadError: no weights as safetensors, a damaged or changed file, or nothing to quantize in it.
    """
    path = Path(source).expanduser()
    files, class_name = _files(path)
    layers = [layer for file in files for layer in _layers_of(file)]
    if not layers:
        raise LoadError(f"{path.name} holds no weights of linear layers or convolutions")
    names = {layer.name for layer in layers}
    if len(names) != len(layers):
        raise LoadError(f"{path.name} holds a layer twice in its files; copy the model again")
    if rules is None:
        rules = rules_for(names)
    ordered = sorted(
        (_with_exemption(layer, rules) for layer in layers), key=lambda layer: _order(layer.name)
    )
    return StoredDenoiser(
        source=path, class_name=class_name, layers=tuple(ordered), nbytes=sum(f.stat().st_size for f in files)
    )


def _files(path: Path) -> tuple[tuple[Path, ...], str]:
    """Weight files and class name of what was given."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise LoadError(f"{path.name} is no safetensors file: other formats can run code when opened")
        return (path,), ""
    if not path.is_dir():
        raise LoadError(
            f"there is no folder or file {str(path)!r}; give a model folder or a safetensors file"
        )
    parent, component = _component(path)
    name = f"{component}/config.json"
    config = read_json(parent, name) if (parent / name).exists() else {}
    return find_weights(parent, component).paths, str(config.get("_class_name", ""))


def _component(path: Path) -> tuple[Path, str]:
    """Parent and name of the folder that holds the denoiser's weights."""
    if (path / INDEX_FILE).exists():
        found = [name for name in DENOISERS if (path / name).is_dir()]
        if not found:
            raise LoadError(
                f"{path.name} has neither of the folders {listed(DENOISERS)}; copy the whole model"
            )
        return path, found[0]
    return path.resolve().parent, path.resolve().name


def _layers_of(path: Path) -> list[StoredLayer]:
    """Every tensor of a file that is the weight of a linear layer or convolution."""
    header, changed_ns = open_header(path), path.stat().st_mtime_ns
    layers = []
    for key, tensor in header.tensors.items():
        name, _, last = key.rpartition(".")
        if last != "weight" or any(fnmatchcase(name, pattern) for pattern in TABLES):
            continue
        dtype = FLOATING.get(tensor.dtype)
        if len(tensor.shape) in (2, 4) and dtype is not None and min(tensor.shape) > 0:
            layers.append(
                StoredLayer(
                    name=name,
                    kind="linear" if len(tensor.shape) == 2 else "conv",
                    shape=tensor.shape,
                    dtype=dtype,
                    path=path,
                    begin=header.data_start + tensor.begin,
                    changed_ns=changed_ns,
                    exempt=None,
                    reason="",
                )
            )
    return layers


def _with_exemption(layer: StoredLayer, rules: tuple[ExemptRule, ...]) -> StoredLayer:
    for rule in rules:
        if fnmatchcase(layer.name, rule.pattern):
            return replace(layer, exempt=rule.exempt, reason=rule.reason)
    return layer


def _order(name: str) -> tuple[int, tuple[tuple[int, str], ...]]:
    """Sorts parts as networks run them, and numbers in names by value."""
    first = next((i for i, part in enumerate(PARTS_IN_ORDER) if name.startswith(part)), len(PARTS_IN_ORDER))
    pieces = tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name))
    return first, pieces
