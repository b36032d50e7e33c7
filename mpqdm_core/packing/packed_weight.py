"""One layer's weight in packed form: channels grouped by level grid and bit-width, each group dense."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mpqdm_core.affine import GRIDS, Grid, QParams, check_grid, quantize
from mpqdm_core.errors import ShapeError
from mpqdm_core.packing.bitpack import ALIGNMENT, pack, packed_size, unpack
from mpqdm_core.weights import WeightParams

_CHUNK = 2**18  # weights worked on at a time: their floating-point values stay in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Output channels of one layer that share a bit-width and a level grid."""

    bits: int
    grid: Grid
    channels: int

    def __post_init__(self) -> None:
        """Refuse a grid or a width that does not exist.

        Raises:
            SettingsError: bits outside 1..8, or an unknown grid.
        """
        packed_size(self.channels, self.bits)
        check_grid(self.grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLayout:
    """Where the codes of a layer's weight lie.

    Attributes:
        shape: of the weight, (O, I) or (O, I / groups, kh, kw).
        groups: in the order of their codes: by bits, affine before mid-rise. Within a group channels keep the
            order of the layer, and a channel's codes the order of its weights.
    """

    shape: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]

    def __post_init__(self) -> None:
        """Make sure that the groups share out all channels.

        Raises:
            ShapeError: they do not.
        """
        counts = [group.channels for group in self.groups]
        if len(self.shape) < 2 or min(counts, default=0) < 1 or sum(counts) != self.shape[0]:
            raise ShapeError(
                f"groups of {counts} channels do not make up a weight of shape {list(self.shape)}"
            )

    @property
    def channels(self) -> int:
        """C_out."""
        return self.shape[0]

    @property
    def weights_per_channel(self) -> int:
        """Weights of one output channel."""
        return math.prod(self.shape[1:])

    @property
    def code_bytes(self) -> int:
        """Bytes of all codes."""
        return sum(packed_size(g.channels * self.weights_per_channel, g.bits) for g in self.groups)

    @property
    def map_bits(self) -> int:
        """Bits of an entry of the channel map: none where there is one group."""
        return (len(self.groups) - 1).bit_length()

    @property
    def map_bytes(self) -> int:
        """Bytes of the channel map."""
        return packed_size(self.channels, self.map_bits) if self.map_bits else 0

    @property
    def zero_point_bytes(self) -> int:
        """Bytes of the zero-points: a mid-rise grid stores none, since its bits fix it."""
        return sum(packed_size(g.channels, g.bits) for g in self.groups if g.grid == "affine")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelTables:
    """What the channel map and the packed zero-points say, read once."""

    order: Tensor | None  # (O,) int64, the layer's channel at each place of the codes; None: as in the layer
    zero_point: Tensor  # (O,) float32 in the order of the codes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedWeight:
    """The stored parts of one layer's weight.

    Attributes:
        layout: how to read them.
        codes: uint8, the groups one after the other.
        channel_map: uint8, for every channel of the layer the index of its group, packed; empty for one.
        zero_points: uint8, of the affine groups one after the other, packed with the group's bits.
        scale: (O,) float32 in the order of the layer.
    """

    layout: WeightLayout
    codes: Tensor
    channel_map: Tensor
    zero_points: Tensor
    scale: Tensor


def pack_weight(params: WeightParams, shape: Sequence[int], rows: Callable[[Tensor], Tensor]) -> PackedWeight:
    """Round a weight to codes and pack them, a stretch of channels at a time.

    Args:
        params: of the output channels; affine zero-points are whole.
        shape: of the weight.
        rows: returns the pre-scaled weights of the channels asked for, (n,) -> (n, ...) float32.
    """
    per_channel = math.prod(shape[1:])
    keys = params.bits.cpu() * len(GRIDS) + params.mid_rise.cpu()  # by bits, then affine before mid-rise
    found, group_of = torch.unique(keys, return_inverse=True)
    groups, codes, zero_points = [], [], []
    for index, key in enumerate(found.tolist()):
        members = torch.nonzero(group_of == index).flatten()
        bits, grid = key // len(GRIDS), GRIDS[key % len(GRIDS)]
        groups.append(ChannelGroup(bits=bits, grid=grid, channels=len(members)))
        group_codes = torch.empty(len(members), per_channel, dtype=torch.uint8)
        for start in range(0, len(members), step := _rows_at_a_time(per_channel)):
            chunk = members[start : start + step]
            q = QParams(
                scale=params.scale[chunk],
                zero_point=params.zero_point[chunk],
                bits=params.bits[chunk],
                grid=grid,
            )
            group_codes[start : start + step] = quantize(rows(chunk).flatten(1), q)
        codes.append(pack(group_codes.view(-1), bits))
        if grid == "affine":
            zero_points.append(pack(params.zero_point[members].cpu().to(torch.uint8), bits))
    layout = WeightLayout(shape=tuple(shape), groups=tuple(groups))
    empty = torch.empty(0, dtype=torch.uint8)
    return PackedWeight(
        layout=layout,
        codes=torch.cat(codes),
        channel_map=pack(group_of.to(torch.uint8), layout.map_bits) if layout.map_bits else empty,
        zero_points=torch.cat(zero_points) if zero_points else empty,
        scale=params.scale.detach().float().cpu().clone(),
    )


def read_tables(layout: WeightLayout, channel_map: Tensor, zero_points: Tensor) -> ChannelTables:
    """Unpack channel map and zero-points.

    Raises:
        ShapeError: the map and the groups disagree.
    """
    order: Tensor | None = None
    if layout.map_bits:
        group_of = unpack(channel_map, layout.map_bits, layout.channels)
        counts = torch.bincount(group_of.int(), minlength=len(layout.groups)).tolist()
        if counts != [group.channels for group in layout.groups]:
            raise ShapeError(
                f"the channel map counts {counts} channels by group, "
                f"expected {[group.channels for group in layout.groups]}"
            )
        order = torch.argsort(group_of.int(), stable=True)
    parts = []
    first = 0
    for group in layout.groups:
        if group.grid == "mid-rise":
            parts.append(
                torch.full((group.channels,), 2 ** (group.bits - 1) - 0.5, device=zero_points.device)
            )
            continue
        size = packed_size(group.channels, group.bits)
        parts.append(unpack(zero_points[first : first + size], group.bits, group.channels).float())
        first += size
    return ChannelTables(order=order, zero_point=torch.cat(parts))


def weight_params(weight: PackedWeight, tables: ChannelTables) -> WeightParams:
    """The parameters of every channel, in the order of the layer."""
    groups = weight.layout.groups
    of_channel = [group for group in groups for _ in range(group.channels)]
    bits = torch.tensor([group.bits for group in of_channel])
    mid_rise = torch.tensor([group.grid == "mid-rise" for group in of_channel])
    device = weight.scale.device
    return WeightParams(
        scale=weight.scale,
        zero_point=_in_layer_order(tables.zero_point, tables.order),
        bits=_in_layer_order(bits.to(device), tables.order),
        mid_rise=_in_layer_order(mid_rise.to(device), tables.order),
    )


def dequantize(weight: PackedWeight, tables: ChannelTables, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack a weight to floating point: (code - zero-point) * scale, in float32, then rounded to `dtype`.

    Returns:
        the weight's shape, in the order of the layer.
    """
    layout = weight.layout
    per_channel = layout.weights_per_channel
    scale = weight.scale if tables.order is None else weight.scale[tables.order]
    out = torch.empty(layout.channels, per_channel, dtype=dtype, device=weight.codes.device)
    first_byte = first_row = 0
    for group in layout.groups:
        total = group.channels * per_channel
        size = packed_size(total, group.bits)
        codes = weight.codes[first_byte : first_byte + size]
        for start in range(0, group.channels, step := _rows_at_a_time(per_channel)):
            count = min(step, group.channels - start)
            rows = slice(first_row + start, first_row + start + count)
            values = unpack(codes, group.bits, total, start * per_channel, count * per_channel).float()
            steps = values.view(count, per_channel).sub_(tables.zero_point[rows].unsqueeze(1))
            if tables.order is None:
                out[rows] = steps.mul_(scale[rows].unsqueeze(1))
            else:
                out.index_copy_(0, tables.order[rows], steps.mul_(scale[rows].unsqueeze(1)).to(dtype))
        first_byte += size
        first_row += group.channels
    return out.view(layout.shape)


def _rows_at_a_time(per_channel: int) -> int:
    """Channels whose codes end at a whole byte and fit the chunk, at least 8."""
    return max(ALIGNMENT, _CHUNK // per_channel // ALIGNMENT * ALIGNMENT)


def _in_layer_order(values: Tensor, order: Tensor | None) -> Tensor:
    """Undo the order of the codes."""
    if order is None:
        return values
    restored = torch.empty_like(values)
    restored[order] = values
    return restored
