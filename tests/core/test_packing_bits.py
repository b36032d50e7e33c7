"""Dense codes and packed weights: against numpy's bits, and against the quantizer they came from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_reader import Stream
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.affine import QParams, dequantize
from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.layers import quantized_twin
from mpqdm_core.lora import LowRank
from mpqdm_core.packing.bitpack import pack, packed_size, unpack
from mpqdm_core.packing.packed_weight import ChannelGroup, WeightLayout, read_tables
from mpqdm_core.packing.packed_weight import dequantize as dequantize_packed
from mpqdm_core.packing.rounding import round_layer
from mpqdm_core.weights import fit_weight

GRIDS = ("affine", "mid-rise", {1: "mid-rise", 2: "mid-rise"}, {3: "mid-rise", 8: "mid-rise"})
SMALL = settings(max_examples=30, deadline=None)


def random_codes(count, bits, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8))


def test_three_bit_codes_by_hand():
    # low bits 10 01 11 00 -> one byte 00_11_01_10; high bits 1 0 1 0 -> 0b0101
    codes = torch.tensor([0b110, 0b001, 0b111, 0b000], dtype=torch.uint8)
    assert pack(codes, 3).tolist() == [0b00110110, 0b0101]


@SMALL
@given(bits=st.integers(1, 8), count=st.integers(0, 300), seed=st.integers(0, 99))
def test_packing_agrees_with_numpys_bits_and_comes_back(bits, count, seed):
    codes = random_codes(count, bits, seed)
    packed = pack(codes, bits)
    assert len(packed) == packed_size(count, bits)
    assert Stream(packed.numpy()).codes(count, bits).tolist() == codes.tolist()
    assert torch.equal(unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_width_wastes_bits(bits):
    planes = bin(bits).count("1")
    for count in (1, 7, 64, 1001):
        assert 0 <= packed_size(count, bits) - count * bits / 8 < planes


@SMALL
@given(bits=st.integers(1, 8), blocks=st.integers(0, 20), count=st.integers(0, 50), rest=st.integers(0, 20))
def test_a_stretch_is_the_stretch_of_the_whole(bits, blocks, count, rest):
    total = 8 * blocks + count + rest
    codes = random_codes(total, bits)
    stretch = unpack(pack(codes, bits), bits, total, 8 * blocks, count)
    assert torch.equal(stretch, codes[8 * blocks : 8 * blocks + count])


def test_what_cannot_be_packed_is_refused():
    codes = random_codes(10, 3)
    with pytest.raises(SettingsError, match=r"1\.\.8, got 9"):
        pack(codes, 9)
    with pytest.raises(ShapeError, match=r"vector of uint8, got torch\.int64"):
        pack(codes.long(), 3)
    with pytest.raises(ShapeError, match=r"codes of 3 bits are a vector of 5 bytes, got torch\.uint8 \(4,\)"):
        unpack(pack(codes, 3)[:4], 3, 10)
    with pytest.raises(SettingsError, match="multiple of 8 within 10 codes, got 4 and 2"):
        unpack(pack(codes, 3), 3, 10, 4, 2)


def quantized_layer(layer, bits, grid, freeze, prescale=None):
    params = fit_weight(layer.weight.detach(), bits, grid=grid, exponent=2.0)
    twin = quantized_twin(layer, params, ActivationQuantizer(channel_axis=1, prescale=prescale))
    if freeze:
        twin.freeze_()
    return twin


@st.composite
def layers(draw):
    """A linear layer or a (grouped) convolution with random bits in every channel."""
    seed = draw(st.integers(0, 999))
    generator = torch.Generator().manual_seed(seed)
    if draw(st.booleans()):
        layer = nn.Linear(draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    else:
        groups = draw(st.sampled_from((1, 2, 3)))
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        inputs, outputs = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 6))
        layer = nn.Conv2d(inputs, outputs, kernel, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    if draw(st.booleans()):
        with torch.no_grad():
            layer.weight[0] = 0.0  # a channel without any range
    widths = torch.tensor(draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)))
    chosen = torch.randint(len(widths), (layer.weight.shape[0],), generator=generator)
    return layer, widths[chosen]


@SMALL
@given(pair=layers(), grid=st.sampled_from(GRIDS), freeze=st.booleans(), prescaled=st.booleans())
def test_a_packed_weight_is_the_layers_rounded_weight(pair, grid, freeze, prescaled):
    layer, bits = pair
    inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    prescale = torch.linspace(0.5, 2.0, inputs) if prescaled else None
    twin = quantized_layer(layer, bits, grid, freeze, prescale)
    packed = round_layer("layer", twin, "float32").weight
    tables = read_tables(packed.layout, packed.channel_map, packed.zero_points)
    assert torch.equal(dequantize_packed(packed, tables), twin.quantized_weight())
    assert len(packed.codes) == sum(
        packed_size(int((bits[mask] == width).sum()) * math.prod(layer.weight.shape[1:]), width)
        for width in range(1, 9)
        for mask in (twin.mid_rise, ~twin.mid_rise)
    )


@SMALL
@given(pair=layers(), grid=st.sampled_from(GRIDS), freeze=st.booleans())
def test_half_precision_scales_are_rounded_before_the_codes(pair, grid, freeze):
    layer, bits = pair
    twin = quantized_layer(layer, bits, grid, freeze)
    packed = round_layer("layer", twin, "float16").weight
    tables = read_tables(packed.layout, packed.channel_map, packed.zero_points)
    weight = dequantize_packed(packed, tables)
    scale = twin.weight_scale.half().float().clamp(min=2.0**-24)
    assert torch.equal(packed.scale, scale)
    # The nearest level, by looking at all of them, of every channel on its own.
    for channel, row in enumerate(twin.weight.flatten(1)):
        width, mid_rise = int(bits[channel]), bool(twin.mid_rise[channel])
        top = 2**width - 1
        zero = top / 2 if mid_rise else float(twin.weight_zero_point[channel])
        levels = (torch.arange(top + 1) - zero) * scale[channel]
        nearest = (row.unsqueeze(1) - levels).abs().amin(dim=1)
        got = (row - weight.flatten(1)[channel]).abs()
        assert torch.all(got <= nearest + 1e-6 * scale[channel])


@pytest.mark.parametrize("grid", ["affine", "mid-rise"])
def test_a_trained_layer_is_packed_with_its_correction_merged_and_zero_points_whole(grid):
    bits = torch.arange(12) % 8 + 1
    twin = quantized_layer(nn.Linear(7, 12), bits, grid, freeze=False, prescale=torch.linspace(0.5, 2.0, 7))
    before = twin.quantized_weight()
    twin.low_rank = LowRank(twin.weight.shape, 2).requires_grad_(False)
    twin.low_rank.b.normal_(generator=torch.Generator().manual_seed(1))
    if grid == "affine":
        twin.weight_zero_point.data += torch.linspace(-3.3, 3.3, 12)
    packed = round_layer("layer", twin, "float32").weight
    tables = read_tables(packed.layout, packed.channel_map, packed.zero_points)
    if grid == "affine":
        top = 2.0**bits - 1
        twin.weight_zero_point.data = twin.weight_zero_point.round().clamp(min=0).minimum(top)
    assert torch.equal(dequantize_packed(packed, tables), twin.quantized_weight())
    assert not torch.equal(before, twin.quantized_weight())


def test_the_result_is_that_of_dequantize_in_other_types_too():
    layer, bits = nn.Conv2d(6, 40, 3), torch.arange(40) % 8 + 1
    twin = quantized_layer(layer, bits, "affine", freeze=True)
    packed = round_layer("layer", twin, "float32").weight
    tables = read_tables(packed.layout, packed.channel_map, packed.zero_points)
    half = dequantize_packed(packed, tables, torch.bfloat16)
    assert torch.equal(half, twin.quantized_weight().bfloat16())
    q = QParams(scale=twin.weight_scale, zero_point=twin.weight_zero_point, bits=bits)
    codes = torch.round(twin.weight / twin.weight_scale.view(-1, 1, 1, 1)) + twin.weight_zero_point.view(
        -1, 1, 1, 1
    )
    assert torch.equal(dequantize(codes, q), dequantize_packed(packed, tables))


def test_groups_must_share_out_all_channels():
    group = ChannelGroup(bits=2, grid="affine", channels=3)
    with pytest.raises(ShapeError, match=r"groups of \[3\] channels do not make up .* \[4, 5\]"):
        WeightLayout(shape=(4, 5), groups=(group,))


def test_a_channel_map_that_counts_otherwise_is_refused():
    groups = tuple(ChannelGroup(bits=bits, grid="mid-rise", channels=2) for bits in (1, 2))
    layout = WeightLayout(shape=(4, 5), groups=groups)
    wrong = pack(torch.tensor([0, 0, 0, 1], dtype=torch.uint8), layout.map_bits)
    with pytest.raises(ShapeError, match=r"counts \[3, 1\] channels by group, expected \[2, 2\]"):
        read_tables(layout, wrong, torch.empty(0, dtype=torch.uint8))
