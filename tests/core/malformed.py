"""Damaged and hostile model folders, generated from one small pipeline: each case is a function on a copy."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.numpy import load_file, save_file

SEED = 20_260_101
INDEX, UNET, SCHEDULE = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SHARDS = f"{WEIGHTS}.index.json"
Case = Callable[[Path, Path], None]  # folder, place outside of it with a whole copy

BROKEN_JSON = {
    "empty": b"",
    "open": b"{",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "text": b'"x"',
    "deep": b'{"a":' * 50_000,
    "deep-list": b"[" * 100_000,
    "nan": b'{"a": NaN}',
    "twice": b'{"_class_name": "a", "_class_name": "b"}',
    "latin": b"\xff\xfe{}",
    "digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "binary": b"\x00" * 100,
}
HOSTILE_UNET = {
    "sample_size": [-1, 0, 10**9, "big", [8, 8, 8, 8, 8], None, 2048],
    "in_channels": [0, -3, 10**9, "3", None, 1e308],
    "out_channels": [0, -1, 10**8],
    "block_out_channels": [[], [0, 0], [33, 64], [10**9, 10**9], ["a", "b"], [32] * 5000, None],
    "layers_per_block": [10**9, -1, "x", 7, [1, 1, 1]],
    "norm_num_groups": [0, 7, -1],
    "attention_head_dim": [0, -1, "x"],
    "down_block_types": [["Evil"], [], 5, [["x"]], ["DownBlock2D"] * 5000],
    "act_fn": ["__import__('os').system('true')", 5, None],
    "time_embedding_type": ["evil"],
    "num_class_embeds": [-1, 10**9, "x"],
    "auto_map": [{"AutoModel": "evil.Evil"}],
    "quantization_config": [{"quant_method": "evil"}],
}
HOSTILE_SCHEDULE = {
    "num_train_timesteps": [0, -1, 10**12, "x", 1.5, None, True],
    "beta_start": ["x", -5, 1e308],
    "beta_schedule": ["evil", 5],
    "trained_betas": [[2, 3], ["x"], [0.1] * 200_000],
    "prediction_type": ["evil", 5],
}
HOSTILE_INDEX = {
    "_class_name": [
        None,
        5,
        "../x",
        ["pipeline_evil", "Evil"],
        "A\nB",
        "x" * 9_999,
        {"a": 1},
        "\ud800",
        True,
    ],
    "unet": [
        ["evil", "UNet2DModel"],
        ["diffusers", "Evil"],
        [1, 2],
        "unet",
        {"a": 1},
        ["diffusers"],
        7,
        None,
    ],
    "scheduler": [["evil", "DDIMScheduler"], ["diffusers", "Evil"], [None, None], [[], []]],
    "../unet": [["diffusers", "UNet2DModel"]],
    "extra\npart": [["diffusers", "VQModel"]],
}
HEADERS = {
    "negative-shape": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "float-shape": {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
    "bool-shape": {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "text-shape": {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    "no-dtype": {"a": {"shape": [1], "data_offsets": [0, 4]}},
    "backwards": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "beyond": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}},
    "huge-shape": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    "axes": {"a": {"dtype": "F32", "shape": [1] * 5000, "data_offsets": [0, 4]}},
    "entry": {"a": 5},
    "list": [1, 2],
    "nothing": {},
}


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def folder_cases() -> Iterator[tuple[str, Case]]:
    """Every case with its name; the same ones at every run."""
    rng = random.Random(SEED)
    for file in (INDEX, UNET, SCHEDULE):
        for name, content in BROKEN_JSON.items():
            yield f"json-{Path(file).stem}-{name}", write(file, content)
        yield f"json-{Path(file).stem}-large", large(file)
        yield f"json-{Path(file).stem}-pipe", pipe(file)
    for file, table in ((UNET, HOSTILE_UNET), (SCHEDULE, HOSTILE_SCHEDULE), (INDEX, HOSTILE_INDEX)):
        for key, values in table.items():
            for number, value in enumerate(values):
                yield f"{Path(file).stem}-{key.strip()!r}-{number}", setting(file, key, value)
    for _ in range(20):
        yield f"cut-{(share := rng.random()):.4f}", cut(share)
    for number in range(20):
        yield f"flip-{number}", flip(rng.random(), rng.randrange(1, 256))
    for length in (0, 1, 2**63, 2**40, 99_999_999, 100_000_001):
        yield f"header-length-{length}", header_of_length(length)
    for name, header in HEADERS.items():
        yield f"header-{name}", header_of(json.dumps(header).encode())
    yield "header-twice", header_of(b'{"a": {}, "a": {}}')
    yield "header-deep", header_of(b'{"a":' * 60_000)
    for number in range(8):
        yield f"tensor-missing-{number}", tensors(rng.randrange(10**6), "drop")
        yield f"tensor-renamed-{number}", tensors(rng.randrange(10**6), "rename")
        yield f"tensor-reshaped-{number}", tensors(rng.randrange(10**6), "reshape")
    yield "tensor-extra", tensors(0, "add")
    for name in (INDEX, UNET, WEIGHTS, SCHEDULE, "unet", "scheduler"):
        yield f"link-out-{name.replace('/', '-')}", link(name, None)
    for name, target in (
        (UNET, "/dev/zero"),
        (WEIGHTS, "/dev/zero"),
        (INDEX, "/etc/passwd"),
        (UNET, "nowhere"),
    ):
        yield f"link-{Path(name).name}-{Path(target).name}", link(name, target)
    for name in ("diffusion_pytorch_model.bin", "model.ckpt", "x.pt", WEIGHTS.split("/")[1]):
        yield f"pickle-{name}", pickled(name)
    names: list[object] = [
        "../x.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "gone.safetensors",
        5,
        None,
        "",
    ]
    for number, name in enumerate(
        [*names, "x.bin", "a\nb.safetensors", "a\0.safetensors", "pipe.safetensors"]
    ):
        yield f"shard-{number}", sharded({"weight_map": {"conv_in.weight": name}})
    for number, content in enumerate(({}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": "x"})):
        yield f"shard-map-{number}", sharded(content)


def write(file: str, content: bytes) -> Case:
    return lambda folder, outside: void((folder / file).write_bytes(content))


def large(file: str) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        with (folder / file).open("r+b") as stream:
            stream.truncate(2**30)

    return damage


def pipe(file: str) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return damage


def setting(file: str, key: str, value: object) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        content = json.loads((folder / file).read_text())
        content[key] = value
        (folder / file).write_text(json.dumps(content))

    return damage


def cut(share: float) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])

    return damage


def flip(share: float, mask: int) -> Case:
    """Change one byte of the header's text; the file carries no notes, where a change would not matter."""

    def damage(folder: Path, outside: Path) -> None:
        save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
        content = bytearray((folder / WEIGHTS).read_bytes())
        length = len(content[8 : 8 + struct.unpack("<Q", content[:8])[0]].rstrip())
        content[8 + int(share * length)] ^= mask
        (folder / WEIGHTS).write_bytes(bytes(content))

    return damage


def header_of_length(length: int) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])

    return damage


def header_of(header: bytes) -> Case:
    return write(WEIGHTS, struct.pack("<Q", len(header)) + header + b"\0" * 4)


def tensors(number: int, change: str) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        content = load_file(folder / WEIGHTS)
        name = sorted(content)[number % len(content)]
        tensor = content[name]
        if change == "add":
            content["evil"] = tensor
        elif change == "reshape":
            content[name] = tensor.reshape(1, *tensor.shape)
        else:
            del content[name]
        if change == "rename":
            content[f"{name}x"] = tensor
        save_file(content, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def link(name: str, target: str | None) -> Case:
    """Put a link in the place of a file; without a target it leads to a whole copy outside the folder."""

    def damage(folder: Path, outside: Path) -> None:
        (folder / name).rename(outside / Path(name).name)
        (folder / name).symlink_to(outside / Path(name).name if target is None else target)

    return damage


def pickled(name: str) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / "unet" / name).write_bytes(pickle.dumps(Evil(outside / "ran")))
        (folder / "unet" / "modeling.py").write_text(f"open({str(outside / 'ran')!r}, 'w')")

    return damage


def sharded(content: object) -> Case:
    def damage(folder: Path, outside: Path) -> None:
        (folder / WEIGHTS).rename(folder / "x.safetensors")
        os.mkfifo(folder / "unet" / "pipe.safetensors")
        (folder / SHARDS).write_text(json.dumps(content))

    return damage


def void(_: object) -> None:
    """Drop a result."""
