"""Outlier statistics straight from files: SD v1.4's U-Net, and shards of a transformer with 12 B parameters.

    python -m benchmarks.streaming [--quick] [--folder runs/streaming]

`read_ratio` is the time of the full outlier statistics of a float32 file with SD v1.4's shapes over the time
of reading that file through memory once, in blocks of the same size; both read from the system's file cache
or both from the disk, as the machine has it. `extra_memory_mib` is the largest anonymous memory above that
before. The transformer is a set of bfloat16 shards; `linearity` is the time per byte of all shards over that
of the first ones. Files hold random weights, are written once into the folder and used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks._record import Figure, record
from benchmarks.kurtosis import sd14_shapes
from mpqdm_core.stored_weights import BLOCK_BYTES, open_stored
from mpqdm_core.streaming import stored_outlier_stats

RATIO_BAR, MEMORY_BAR_MIB, LINEARITY_BAR = 2.0, 1536.0, 1.25
WIDTH = 3072  # of the transformer, as Flux has it
ROUNDS = 9
SEED = 0


def write_unet(path: Path, shapes: Sequence[tuple[int, ...]]) -> None:
    """A float32 file with these weights, unless it is there."""
    if path.exists():
        return
    generator = torch.Generator().manual_seed(SEED)
    tensors = {
        f"down_blocks.{index}.layer.weight": torch.randn(shape, generator=generator).mul_(0.02)
        for index, shape in enumerate(shapes)
    }
    partial = path.with_suffix(".part")
    save_file(tensors, partial)
    partial.rename(path)


def write_shards(folder: Path, shards: int, blocks: int) -> None:
    """Shards of transformer blocks in bfloat16, 113 M parameters a block, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(SEED)
    shapes = {f"attn.to_{part}": (WIDTH, WIDTH) for part in "qkv"} | {
        "attn.to_out.0": (WIDTH, WIDTH),
        "ff.net.0.proj": (4 * WIDTH, WIDTH),
        "ff.net.2": (WIDTH, 4 * WIDTH),
    }
    index: dict[str, str] = {}
    for shard in range(shards):
        name = f"diffusion_pytorch_model-{shard:05d}.safetensors"
        numbers = range(shard * blocks, (shard + 1) * blocks)
        keys = [(f"transformer_blocks.{n}.{layer}.weight", s) for n in numbers for layer, s in shapes.items()]
        index |= {key: name for key, _ in keys}
        if not (folder / name).exists():
            tensors = {key: torch.randn(s, generator=generator).bfloat16() for key, s in keys}
            save_file(tensors, folder / f"{name}.part")
            (folder / f"{name}.part").rename(folder / name)
    text = json.dumps({"weight_map": index})
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)


def read_through(paths: Sequence[Path]) -> None:
    """Read files through memory once."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def anonymous_mib() -> float:
    """Memory of this process that is no file's, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def peak_extra_mib(work: Callable[[], object]) -> float:
    """Largest anonymous memory above the start, looked at every 5 ms."""
    before, highest, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], anonymous_mib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest[0]


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the layers, two small shards")
    parser.add_argument("--folder", type=Path, default=Path("runs/streaming"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    name = "quick" if asked.quick else "sd14"
    file = asked.folder / f"{name}.safetensors"
    write_unet(file, sorted(sd14_shapes())[:: 10 if asked.quick else 1])
    shards, blocks = (2, 1) if asked.quick else (12, 9)
    transformer = asked.folder / f"{name}-transformer"
    write_shards(transformer, shards, blocks)

    unet, times = open_stored(file), {"read_s": [], "statistics_s": []}  # type: ignore[var-annotated]
    read_through([file]), stored_outlier_stats(unet)  # into the system's cache, and what is compiled once
    for _ in range(ROUNDS):
        times["read_s"].append(timed(lambda: read_through([file])))
        times["statistics_s"].append(timed(lambda: stored_outlier_stats(unet)))
    extra = peak_extra_mib(lambda: stored_outlier_stats(unet))
    first = open_stored(transformer / "diffusion_pytorch_model-00000.safetensors")
    whole = open_stored(transformer)
    times["first_shard_s"] = [timed(lambda: stored_outlier_stats(first))]
    whole_extra = peak_extra_mib(
        lambda: times.setdefault("all_shards_s", []).append(timed(lambda: stored_outlier_stats(whole)))
    )
    ratio = statistics.median(times["statistics_s"]) / statistics.median(times["read_s"])
    per_byte = [times["all_shards_s"][0] / whole.nbytes, times["first_shard_s"][0] / first.nbytes]
    linearity = per_byte[0] / per_byte[1]
    figures = {
        "read_ratio": Figure(ratio, "x", bar=RATIO_BAR, met=ratio <= RATIO_BAR),
        "statistics_s": Figure(statistics.median(times["statistics_s"]), "s"),
        "extra_memory_mib": Figure(extra, "MiB", bar=MEMORY_BAR_MIB, met=extra <= MEMORY_BAR_MIB),
        "transformer_parameters": Figure(sum(layer.elements for layer in whole.layers) / 1e9, "billion"),
        "transformer_s": Figure(times["all_shards_s"][0], "s"),
        "transformer_linearity": Figure(linearity, "x", bar=LINEARITY_BAR, met=linearity <= LINEARITY_BAR),
        "transformer_extra_memory_mib": Figure(
            whole_extra, "MiB", bar=MEMORY_BAR_MIB, met=whole_extra <= MEMORY_BAR_MIB
        ),
    }
    record("streaming", figures=figures, repeats=times, seed=SEED)


if __name__ == "__main__":
    main()
