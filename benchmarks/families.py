"""Seven architectures in their true sizes, analysed and allocated from files alone.

    python -m benchmarks.families [--quick] [--folder runs/families]

Each network is built from its published configuration without memory for weights (on torch's meta device).
What the family says of it (layers, and which are exempt) is compared with what the files say, and safetensors
shards with its tensors are written, filled with random numbers that repeat, read for outlier statistics and
for an error table, allocated, and deleted. Statistics are of all weights. The error table, which takes most
of the time, is of all weights up to a thousand million parameters; of larger networks it is of a copy whose
layers have a quarter of the channels in and out. `--quick` has a sixteenth of the channels of everything,
and its tables are of every eighth layer.

What was measured of an architecture is kept in the folder, so that the command goes on where it was killed.

`allocated` counts the architectures that went the whole way, `agreeing` those where family and files list the
same layers with the same exemptions. `extra_memory_mib` is the largest memory beyond what there was before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks._record import Figure, record
from benchmarks.streaming import peak_extra_mib
from mpqdm_core.allocation import AllocationSettings, allocate
from mpqdm_core.denoiser import describe_layers
from mpqdm_core.errors import MpqdmError
from mpqdm_core.families import FAMILIES
from mpqdm_core.freed_memory import give_back
from mpqdm_core.stored_weights import StoredDenoiser, open_stored
from mpqdm_core.streaming import stored_error_table, stored_outlier_stats

SEED = 0
MEMORY_BAR_MIB = 1536.0
SHARD_NUMBERS = 2**29  # of bfloat16: 1 GiB a file
POOL_NUMBERS = 2**24
TABLE_LIMIT = 1_000_000_000  # parameters
LARGE_SCALE, QUICK_SCALE = 4, 16
QUICK_STRIDE = 8
AVERAGE_BITS = 3.0
WEIGHT_SIZE = 0.02  # standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A published denoiser."""

    name: str
    family: str  # a key of FAMILIES
    network_class: str  # of diffusers
    config: Mapping[str, Any]


CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
ARCHITECTURES = (
    Architecture(
        name="LDM-4 ImageNet",
        family="ldm-text",  # its classes are embedded and attended to as a text of one word
        network_class="UNet2DConditionModel",
        config={
            "sample_size": 64,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (192, 384, 576, 960),
            "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0], CROSS[0]),
            "up_block_types": (CROSS[1], CROSS[1], CROSS[1], "UpBlock2D"),
            "attention_head_dim": (6, 12, 18, 30),
            "cross_attention_dim": 512,
        },
    ),
    Architecture(
        name="SD v1.4",
        family="stable-diffusion",
        network_class="UNet2DConditionModel",
        config={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    ),
    Architecture(
        name="SDXL",
        family="stable-diffusion-xl",
        network_class="UNet2DConditionModel",
        config={
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", CROSS[0], CROSS[0]),
            "up_block_types": (CROSS[1], CROSS[1], "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    Architecture(
        name="DiT-XL/2",
        family="dit",
        network_class="DiTTransformer2DModel",
        config={"sample_size": 32, "in_channels": 4, "out_channels": 8},
    ),
    Architecture(
        name="PixArt-alpha",
        family="pixart",
        network_class="PixArtTransformer2DModel",
        config={"sample_size": 128, "caption_channels": 4096},
    ),
    Architecture(
        name="SD3-medium",
        family="stable-diffusion-3",
        network_class="SD3Transformer2DModel",
        config={
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "out_channels": 16,
            "pos_embed_max_size": 192,
        },
    ),
    Architecture(
        name="Flux-dev",
        family="flux",
        network_class="FluxTransformer2DModel",
        config={"guidance_embeds": True},
    ),
)


def sketch(architecture: Architecture) -> nn.Module:
    """The network without memory for weights."""
    with torch.device("meta"):
        network: nn.Module = getattr(diffusers, architecture.network_class)(**architecture.config)
    return network.eval()


def write_files(network: nn.Module, folder: Path, scale: int) -> None:
    """Shards of bfloat16 with the network's tensors; `scale` divides the channels of every layer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(SEED)
    pool = torch.randn(POOL_NUMBERS, generator=generator).mul_(WEIGHT_SIZE).bfloat16()
    shard: dict[str, Tensor] = {}
    index: dict[str, str] = {}
    held = 0
    for name, tensor in network.state_dict().items():
        shape = torch.Size(
            max(1, axis // scale) if place < 2 else axis for place, axis in enumerate(tensor.shape)
        )
        numbers = shape.numel()
        filled = pool if numbers <= POOL_NUMBERS else pool.repeat(numbers // POOL_NUMBERS + 1)
        shard[name] = filled[:numbers].clone().view(shape)
        held += numbers
        if held >= SHARD_NUMBERS:
            index |= _write(shard, folder)
            held = 0
    index |= _write(shard, folder)
    text = json.dumps({"weight_map": index})
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text, encoding="utf-8")


def analyse(architecture: Architecture, folder: Path, quick: bool) -> dict[str, float]:
    """Take one architecture the whole way; seconds, memory, and whether family and files agree."""
    network = sketch(architecture)
    parameters = sum(tensor.numel() for tensor in network.parameters())
    scale = QUICK_SCALE if quick else 1
    table_scale = max(scale, LARGE_SCALE if parameters > TABLE_LIMIT else 1)
    seconds, memory, agreeing = {}, 0.0, False
    for size in dict.fromkeys((scale, table_scale)):
        write_files(network, folder, size)
        stored = open_stored(folder)
        if size == scale:
            agreeing = {layer.name: layer.exempt for layer in stored.layers} == _family_layers(
                architecture, network
            )
            seconds["statistics_s"], extra = _watched(partial(stored_outlier_stats, stored))
            memory = max(memory, extra)
        if size == table_scale:
            seconds["table_s"], extra = _watched(partial(_allocated, stored, QUICK_STRIDE if quick else 1))
            memory = max(memory, extra)
        shutil.rmtree(folder)
    return {
        **seconds,
        "parameters": parameters,
        "extra_memory_mib": memory,
        "agreeing": float(agreeing),
        "scaled": float(table_scale > 1),
    }


def _allocated(stored: StoredDenoiser, stride: int) -> None:
    """Measure and allocate every `stride`-th layer."""
    stored = replace(stored, layers=stored.layers[::stride])
    settings = AllocationSettings(policy="optimal", average_bits=AVERAGE_BITS)
    allocate(stored_error_table(stored), settings)


def _family_layers(architecture: Architecture, network: nn.Module) -> dict[str, str | None]:
    family = FAMILIES[architecture.family]
    with torch.device("meta"):
        layers = describe_layers(network, family.example(network), family.exempt_rules)
    return {layer.name: layer.exempt for layer in layers}


def _watched(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and extra MiB of one call, of which what was freed before is no part."""
    give_back()
    start = time.perf_counter()
    extra = peak_extra_mib(work)
    return time.perf_counter() - start, extra


def _write(shard: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """Write what a shard holds and empty it; returns each tensor's file."""
    number = len(list(folder.glob("*.safetensors")))
    name = f"diffusion_pytorch_model-{number:05d}.safetensors"
    index = dict.fromkeys(shard, name)
    if shard:
        save_file(shard, folder / name)
        shard.clear()
    return index


def kept(path: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What a file holds; measured and written where there is none."""
    if not path.exists():
        text = json.dumps(measure())
        print(path.stem, text, flush=True)
        partial_file = path.with_suffix(".part")
        partial_file.write_text(text, encoding="utf-8")
        partial_file.rename(path)
    result: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return result


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the channels; under 50 s")
    parser.add_argument("--folder", type=Path, default=Path("runs/families"))
    asked = parser.parse_args()
    folder = asked.folder / ("quick" if asked.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, float]] = []
    notes = ["weights are random numbers that repeat, and networks were built without memory for weights"]
    for architecture in ARCHITECTURES:
        try:
            result = kept(
                folder / f"{architecture.name.replace('/', '-')}.json",
                partial(analyse, architecture, folder / "transformer", asked.quick),
            )
        except MpqdmError as error:
            notes.append(f"{architecture.name}: {error}")
            continue
        results.append(result)
        scaled = ", error table of fewer channels" if result["scaled"] else ""
        notes.append(
            f"{architecture.name}: {result['parameters'] / 1e6:.0f} million parameters, statistics "
            f"{result['statistics_s']:.0f} s, table and allocation {result['table_s']:.0f} s{scaled}"
        )
    wanted = len(ARCHITECTURES)
    extra = max((result["extra_memory_mib"] for result in results), default=0.0)
    agreeing = sum(result["agreeing"] for result in results)
    figures = {
        "allocated": Figure(len(results), "architectures", bar=wanted, met=len(results) == wanted),
        "agreeing": Figure(agreeing, "architectures", bar=wanted, met=agreeing == wanted),
        "parameters": Figure(sum(result["parameters"] for result in results) / 1e9, "billion"),
        "extra_memory_mib": Figure(extra, "MiB", bar=MEMORY_BAR_MIB, met=extra <= MEMORY_BAR_MIB),
    }
    repeats = {key: [result[key] for result in results] for key in ("parameters", "statistics_s", "table_s")}
    record("families", figures=figures, repeats=repeats, seed=SEED, notes=notes)


if __name__ == "__main__":
    main()
