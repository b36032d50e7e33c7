"""Other libraries' weight-only quantizers, all through the same four steps: quantize, count, save, load.

Each runs with its own defaults for these bits, on the very layers that this library quantizes; what a library
leaves out is counted and said. None of them is a dependency: requirements-peers.txt lists them.
"""

from __future__ import annotations

import importlib
import json
import os
from abc import abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

TABLE_BITS = 16  # of a real scale or zero-point, whatever type a library keeps it in: to its favour
WEIGHTS = "denoiser.safetensors"


class Peer:
    """One library."""

    name: str
    package: str  # as pip knows it
    module: str  # that must be there
    widths: tuple[int, ...]
    limits: str  # what it cannot, in a sentence

    @property
    def there(self) -> bool:
        """Whether it is installed."""
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:  # the package around it is missing
            return False

    @abstractmethod
    def quantize(self, network: nn.Module, names: Sequence[str], bits: int) -> nn.Module:
        """Quantize layers of a network in place."""

    @abstractmethod
    def tables(self, layer: nn.Module) -> Sequence[Tensor] | None:
        """Scales and zero-points of a layer; None if it was left in full precision."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the network."""

    @abstractmethod
    def load(self, fresh: nn.Module, folder: Path) -> nn.Module:
        """Read what `save` wrote into a network of the same configuration with other weights."""

    def effective_bits(self, network: nn.Module, shapes: dict[str, int], bits: int) -> tuple[float, float]:
        """Stored bits of a weight with its tables, and the share of the weights that were quantized.

        Args:
            network: quantized.
            shapes: weights of each layer by name.
            bits: of a code; a layer that was left out counts as half precision.
        """
        stored, covered = 0, 0
        for name, weights in shapes.items():
            tables = self.tables(network.get_submodule(name))
            covered += 0 if tables is None else weights
            stored += weights * (TABLE_BITS if tables is None else bits)
            # A whole zero-point is one of the levels and takes no more bits than a code.
            for table in tables or ():
                stored += table.numel() * (TABLE_BITS if table.is_floating_point() else bits)
        total = sum(shapes.values())
        return stored / total, covered / total


class Quanto(Peer):
    """optimum-quanto."""

    name, package, module, widths = "quanto", "optimum-quanto", "optimum.quanto", (2, 4, 8)
    limits = "optimum-quanto has no 3 bits; Linear and Conv2d, one bit-width a layer"

    def quantize(self, network: nn.Module, names: Sequence[str], bits: int) -> nn.Module:
        """See `Peer`."""
        quanto: Any = importlib.import_module(self.module)
        quanto.quantize(network, weights=f"qint{bits}", include=list(names))
        quanto.freeze(network)
        return network

    def tables(self, layer: Any) -> Sequence[Tensor] | None:
        """See `Peer`."""
        return _present(layer.weight, "_scale", "_shift")

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `Peer`."""
        quanto: Any = importlib.import_module(self.module)
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, folder / WEIGHTS)
        (folder / "map.json").write_text(json.dumps(quanto.quantization_map(network)), encoding="utf-8")

    def load(self, fresh: nn.Module, folder: Path) -> nn.Module:
        """See `Peer`."""
        quanto: Any = importlib.import_module(self.module)
        quantization_map = json.loads((folder / "map.json").read_text(encoding="utf-8"))
        quanto.requantize(fresh, load_file(folder / WEIGHTS), quantization_map, torch.device("cpu"))
        return fresh


class Torchao(Peer):
    """torchao's intx, one scale and zero-point for 32 weights."""

    name, package, module, widths = "torchao", "torchao", "torchao.quantization", (2, 3, 4, 8)
    limits = "torchao keeps intx weights as one byte each outside ARM: files are as large as at 8 bits"
    group = 32

    def quantize(self, network: nn.Module, names: Sequence[str], bits: int) -> nn.Module:
        """See `Peer`."""
        torchao: Any = importlib.import_module(self.module)
        granularity: Any = importlib.import_module("torchao.quantization.granularity")
        config = torchao.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=granularity.PerGroup(self.group),
            mapping_type=torchao.MappingType.ASYMMETRIC,
        )
        chosen = set(names)
        torchao.quantize_(network, config, filter_fn=lambda _module, name: name in chosen)
        return network

    def tables(self, layer: Any) -> Sequence[Tensor] | None:
        """See `Peer`."""
        return _present(layer.weight, "scale", "zero_point")

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `Peer`."""
        torch.save(network.state_dict(), folder / "denoiser.pt")  # tensors of classes of its own

    def load(self, fresh: nn.Module, folder: Path) -> nn.Module:
        """See `Peer`."""
        state = torch.load(folder / "denoiser.pt", weights_only=False)  # written by this process
        fresh.load_state_dict(state, assign=True)
        return fresh


class HqqLayer(nn.Module):
    """A layer whose weight hqq's quantizer packed; unpacked at each use."""

    packed: Tensor

    def __init__(self, layer: Any, packed: Tensor, meta: dict[str, Any]) -> None:
        """Stand in for a linear layer or convolution."""
        super().__init__()
        self.layer = layer
        self.shape = layer.weight.shape
        layer.weight = None
        self.meta = {name: value for name, value in meta.items() if name not in ("scale", "zero")}
        for name, value in (("packed", packed), ("scale", meta["scale"]), ("zero", meta["zero"])):
            self.register_buffer(name, value.half() if value.is_floating_point() else value)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        quantizer: Any = importlib.import_module("hqq.core.quantize").Quantizer
        meta = {
            **self.meta,
            "scale": self.scale.float(),
            "zero": self.zero.float(),
            "compute_dtype": torch.float32,
        }
        weight, layer = quantizer.dequantize(self.packed, meta).reshape(self.shape), self.layer
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weight, layer.bias)
        return functional.conv2d(
            x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )


class Hqq(Peer):
    """hqq, groups of 64."""

    name, package, module, widths = "hqq", "hqq", "hqq.core.quantize", (2, 3, 4, 8)
    limits = "hqq has no convolution: its quantizer was given their kernels as matrices, by this benchmark"

    def quantize(self, network: nn.Module, names: Sequence[str], bits: int) -> nn.Module:
        """See `Peer`."""
        hqq: Any = importlib.import_module(self.module)
        settings = hqq.BaseQuantizeConfig(nbits=bits)["weight_quant_params"]
        for name in names:
            layer = network.get_submodule(name)
            matrix = layer.get_parameter("weight").detach().flatten(1)
            packed, meta = hqq.Quantizer.quantize(
                matrix, **settings, device="cpu", compute_dtype=torch.float32
            )
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, HqqLayer(layer, packed, meta))
        return network

    def tables(self, layer: Any) -> Sequence[Tensor] | None:
        """See `Peer`."""
        return [layer.scale, layer.zero] if isinstance(layer, HqqLayer) else None

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `Peer`."""
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, folder / WEIGHTS)
        layers = {n: m for n, m in network.named_modules() if isinstance(m, HqqLayer)}
        torch.save({name: layer.meta for name, layer in layers.items()}, folder / "meta.pt")

    def load(self, fresh: nn.Module, folder: Path) -> nn.Module:
        """See `Peer`."""
        state = load_file(folder / WEIGHTS)
        for name, meta in torch.load(folder / "meta.pt", weights_only=False).items():
            parts = {part: state[f"{name}.{part}"] for part in ("scale", "zero")}
            parent, _, child = name.rpartition(".")
            layer = HqqLayer(fresh.get_submodule(name), state[f"{name}.packed"], {**meta, **parts})
            setattr(fresh.get_submodule(parent), child, layer)
        fresh.load_state_dict(state, assign=True)
        return fresh


class Sdnq(Peer):
    """SD.Next's quantizer, with convolutions; groups of 32 like torchao's."""

    name, package, module, widths = "sdnq", "sdnq", "sdnq", (2, 3, 4, 8)
    limits = (
        "sdnq would choose groups of 8 weights at 2 bits, whose tables cost 4 bits a weight: it was given "
        "groups of 32; its torch.compile is off, since compiling takes longer than all pictures here"
    )
    group = 32

    def quantize(self, network: nn.Module, names: Sequence[str], bits: int) -> nn.Module:
        """See `Peer`."""
        sdnq, chosen = self._library(), set(names)
        layers = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        quantized: nn.Module = sdnq.sdnq_post_load_quant(
            network,
            weights_dtype=f"uint{bits}" if bits < 8 else "int8",
            group_size=self.group if bits < 8 else 0,
            quant_conv=True,
            minimum_allowed_numel=0,
            minimum_allowed_channel_size=0,
            modules_to_not_convert=[f".{name}.weight" for name in layers if name not in chosen],
            add_skip_keys=False,
            torch_dtype=torch.float32,
        )
        return quantized

    def tables(self, layer: Any) -> Sequence[Tensor] | None:
        """See `Peer`."""
        return _present(layer, "scale", "zero_point")

    def save(self, network: nn.Module, folder: Path) -> None:
        """See `Peer`."""
        self._library().save_sdnq_model(network, str(folder))

    def load(self, fresh: nn.Module, folder: Path) -> nn.Module:
        """See `Peer`."""
        loaded: nn.Module = self._library().load_sdnq_model(
            str(folder), model_cls=type(fresh), dtype=torch.float32
        )
        return loaded

    def _library(self) -> Any:
        os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")  # read once, at import
        return importlib.import_module(self.module)


def _present(owner: Any, *names: str) -> list[Tensor] | None:
    """The tables that are there; None without the first."""
    found = [getattr(owner, name, None) for name in names]
    return None if found[0] is None else [table for table in found if table is not None]


PEERS: tuple[Peer, ...] = (Quanto(), Torchao(), Hqq(), Sdnq())
