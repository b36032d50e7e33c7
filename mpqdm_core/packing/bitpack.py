"""Codes of 1 to 8 bits as dense bytes, and back, with torch alone.

A width is stored as planes of 4, 2 and 1 bits, as its binary digits say: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2,
7 = 4 + 2 + 1; 8 is a plane of whole bytes. The first plane holds the lowest bits of every code, the next the
bits above them. In a plane of w bits, code i takes the bits `i * w ... (i + 1) * w - 1` of the plane's
stream, lowest first; bit j of a stream is bit `j % 8` of byte `j // 8`. Only the last byte of a plane is
filled up, with zeros, so that no width wastes bits. The planes follow one another.

Every plane is unpacked through a table of the codes behind each byte, moved as one wide element: on a CPU
several times faster than a shift for every code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from mpqdm_core.affine import MAX_BITS, MIN_BITS
from mpqdm_core.errors import SettingsError, ShapeError

BYTE = 8
ALIGNMENT = 8  # codes after which every plane is at a whole byte again
_PLANES = (8, 4, 2, 1)
_WIDE = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes -> a type of that width


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return sum(_plane_size(count, width) for width, _ in _planes(bits))


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes densely.

    Args:
        codes: (n,) uint8, each below 2**bits.
        bits: 1..8.

    Returns:
        (packed_size(n, bits),) uint8.

    Raises:
        SettingsError: bits outside 1..8.
        ShapeError: codes are not a vector of uint8.
    """
    if codes.ndim != 1 or codes.dtype != torch.uint8:
        raise ShapeError(f"codes must be a vector of uint8, got {codes.dtype} {tuple(codes.shape)}")
    return torch.cat([_pack_plane(codes, width, lowest) for width, lowest in _planes(bits)])


def unpack(packed: Tensor, bits: int, total: int, start: int = 0, count: int | None = None) -> Tensor:
    """Unpack codes, all of them or a stretch.

    Args:
        packed: bytes as `pack` returned them.
        bits: 1..8.
        total: codes in `packed`.
        start: first code wanted, a multiple of 8.
        count: how many; None for all up to the end.

    Returns:
        (count,) uint8.

    Raises:
        SettingsError: bits outside 1..8, or a stretch that starts within a byte or leaves the codes.
        ShapeError: packed is no vector of uint8 of the right length.
    """
    size = packed_size(total, bits)
    if packed.ndim != 1 or packed.dtype != torch.uint8 or len(packed) != size:
        raise ShapeError(
            f"{total} codes of {bits} bits are a vector of {size} bytes, "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    count = total - start if count is None else count
    if start % ALIGNMENT or not 0 <= start <= start + count <= total:
        raise SettingsError(
            f"a stretch starts at a multiple of {ALIGNMENT} within {total} codes, got {start} and {count}"
        )
    codes: Tensor | None = None
    first = 0
    for width, lowest in _planes(bits):
        begin = first + start * width // BYTE
        stretch = packed[begin : begin + _plane_size(count, width)]
        part = _unpack_plane(stretch, width, lowest)[:count]
        codes = part if codes is None else codes.add_(part)
        first += _plane_size(total, width)
    return packed[:0] if codes is None else codes


def _planes(bits: int) -> Iterator[tuple[int, int]]:
    """Width and lowest bit of every plane."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise SettingsError(f"bits must be in {MIN_BITS}..{MAX_BITS}, got {bits}")
    lowest = 0
    for width in _PLANES:
        if bits & width:
            yield width, lowest
            lowest += width


def _plane_size(count: int, width: int) -> int:
    return -(-count * width // BYTE)


def _pack_plane(codes: Tensor, width: int, lowest: int) -> Tensor:
    if width == BYTE:
        return codes
    per_byte = BYTE // width
    digits = (codes >> lowest) & (2**width - 1)
    places = functional.pad(digits, (0, -len(codes) % per_byte)).view(-1, per_byte)
    packed = places[:, 0].clone()
    for place in range(1, per_byte):
        packed |= places[:, place] << (width * place)
    return packed


def _unpack_plane(packed: Tensor, width: int, lowest: int) -> Tensor:
    """Return the codes' bits of this plane, in their place; a new tensor."""
    if width == BYTE:
        return packed.clone()
    table = _table(width, lowest, packed.device)
    return table.index_select(0, packed.int()).view(torch.uint8)


@lru_cache(maxsize=64)
def _table(width: int, lowest: int, device: torch.device) -> Tensor:
    """All codes behind every byte, as (256,) elements that are as wide as those codes together."""
    places = width * torch.arange(BYTE // width)
    digits = (torch.arange(2**BYTE).unsqueeze(1) >> places) & (2**width - 1)  # (256, codes of a byte)
    codes = (digits << lowest).to(torch.uint8)
    table: Tensor = codes.view(_WIDE[codes.shape[1]]).squeeze(1).to(device)
    return table
