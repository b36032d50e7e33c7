"""A reader of packed files written from docs/packed-format.md alone: numpy, no code of the library."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

TYPES = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}


def read_file(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Manifest and tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["mpqdm"])
    body = data[8 + length :]
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(body[start:end], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return manifest, tensors


class Stream:
    """Takes bit streams off the front of a row of bytes."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def bytes(self, count: int) -> np.ndarray:
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def codes(self, count: int, bits: int) -> np.ndarray:
        values = np.zeros(count, dtype=np.int64)
        lowest = 0
        for width in (8, 4, 2, 1):
            if not bits & width:
                continue
            stream = np.unpackbits(self.bytes((count * width + 7) // 8), bitorder="little")
            digits = stream[: count * width].reshape(count, width).astype(np.int64)
            values += (digits << np.arange(width)).sum(axis=1) << lowest
            lowest += width
        return values


def read_layer(entry: dict, tensors: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """Weight (float32, in the order of the layer) and input tables of one packed layer."""
    shape, name = entry["shape"], entry["name"]
    channels, per_channel = shape[0], int(np.prod(shape[1:]))
    stream = Stream(tensors[f"{name}.weight_packed"])
    groups = entry["groups"]
    codes = [stream.codes(count * per_channel, bits).reshape(count, -1) for bits, _, count in groups]
    zeros = [
        stream.codes(count, bits) if grid == "affine" else np.full(count, 2 ** (bits - 1) - 0.5)
        for bits, grid, count in groups
    ]
    index = np.zeros(channels, dtype=np.int64)
    if len(groups) > 1:
        index = stream.codes(channels, int(np.ceil(np.log2(len(groups)))))
    scales = tensors[f"{name}.scales"].astype(np.float32)
    weight_scale, scales = scales[:channels], scales[channels:]
    weight = np.empty((channels, per_channel), dtype=np.float32)
    for group, (group_codes, group_zeros) in enumerate(zip(codes, zeros, strict=True)):
        rows = np.flatnonzero(index == group)
        steps_from_zero = (group_codes - group_zeros[:, None]).astype(np.float32)
        weight[rows] = steps_from_zero * weight_scale[rows, None]
    found = {"weight": weight.reshape(shape)}
    if entry["prescale"]:
        inputs = shape[1] * entry.get("conv_groups", 1)
        found["prescale"], scales = scales[:inputs], scales[inputs:]
    if entry["activation_bits"] is not None:
        found["input_scale"] = scales
        found["input_zero_point"] = stream.bytes(steps).astype(np.float32)
        assert len(scales) == steps
    assert len(stream.data) == 0
    return found
