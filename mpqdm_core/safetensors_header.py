"""The header of a safetensors file: what tensors it says it holds, checked against its length.

Nothing but the header is read. It may come from anyone, so every value in it is taken for what it is, and
what is refused is refused with one sentence.
"""

from __future__ import annotations

import math
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqdm_core.errors import LoadError
from mpqdm_core.strict_json import parse_json

LENGTH_BYTES = 8  # a file opens with the length of its header, little-endian
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
MAX_AXES = 16
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file."""

    dtype: str  # as the format names it; may be one that is not known here
    shape: tuple[int, ...]
    begin: int  # first byte, counted from the end of the header
    end: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderFacts:
    """What a header says."""

    tensors: Mapping[str, StoredTensor]
    header_bytes: int  # without the length before it

    @property
    def elements(self) -> int:
        """Numbers in all tensors together."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def data_start(self) -> int:
        """Where the tensors begin in the file."""
        return LENGTH_BYTES + self.header_bytes

    @property
    def data_bytes(self) -> int:
        """Length of what follows the header."""
        return max((tensor.end for tensor in self.tensors.values()), default=0)


def header_length(opening: bytes) -> int:
    """Length of the header by a file's first bytes; 0 if they give none that could be."""
    if len(opening) < LENGTH_BYTES:
        return 0
    length = int(struct.unpack("<Q", opening[:LENGTH_BYTES])[0])
    return length if length <= MAX_HEADER_BYTES else 0


def read_header(header: bytes, name: str) -> HeaderFacts:
    """Read what a header lists.

    Args:
        header: its bytes, without the length before it.
        name: of the file, for the sentence.

    Raises:
        LoadError: it is no header, or contradicts itself.
    """
    try:
        entries = parse_json(header.decode("utf-8"))
        tensors = {key: _tensor(entry) for key, entry in entries.items() if key != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LoadError(
            f"{name} is not a safetensors file: its header cannot be read; save it again"
        ) from error
    return HeaderFacts(tensors=tensors, header_bytes=len(header))


def open_header(path: Path) -> HeaderFacts:
    """Read the header of a file, and check that the file is as long as that says.

    Raises:
        LoadError: it is missing, cut short, or no safetensors file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise LoadError(f"{path} is no file; copy or fetch it again")
        size = status.st_size
        with path.open("rb") as file:
            length = header_length(file.read(LENGTH_BYTES))
            header = file.read(length) if length else b""
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    if len(header) < length:
        raise LoadError(f"{path} is cut short inside its header: it has {size} bytes; copy or fetch it again")
    facts = read_header(header, str(path))
    expected = facts.data_start + facts.data_bytes
    if size != expected:
        problem = "is cut short" if size < expected else "is too long"
        raise LoadError(
            f"{path} {problem}: its header promises {expected} bytes, it has {size}; copy or fetch it again"
        )
    return facts


def _tensor(entry: Mapping[str, Any]) -> StoredTensor:
    """What one entry says, if that can be."""
    shape, (begin, end), dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    whole = [begin, end, *shape]
    if len(shape) > MAX_AXES or any(type(number) is not int or number < 0 for number in whole):
        raise ValueError("shape and offsets must be whole numbers from 0 up")
    elements = math.prod(shape)
    if begin > end or (dtype in BITS and elements * BITS[dtype] != 8 * (end - begin)):
        raise ValueError("a tensor's shape does not fit its bytes")
    return StoredTensor(dtype=str(dtype), shape=tuple(shape), begin=begin, end=end)
