"""Triton's kernels on packed weights: on a GPU, or in Triton's interpreter where TRITON_INTERPRET=1 is set.

The oracle of a layer decodes its bytes with numpy, as docs/packed-format.md says, and multiplies in float64.
"""

import copy
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_reader import Stream
from tiny_packed import exported
from tiny_quant import small_calibration, small_denoiser, uniform_plan
from torch import nn
from torch.nn import functional

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.layers import quantized_twin
from mpqdm_core.packing import load_packed, use_kernels
from mpqdm_core.packing.multiplication import kernels_for
from mpqdm_core.packing.packed_layers import PackedConv2d, PackedLinear
from mpqdm_core.packing.rounding import round_layer
from mpqdm_core.packing.unpack_cache import UnpackCache
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight

pytest.importorskip("triton", reason="Triton comes with CUDA builds of torch")
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs a GPU, or TRITON_INTERPRET=1 in the environment from the start",
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 2.0**-24  # of float32, relative
BOTH = {1: "mid-rise", 2: "mid-rise", 5: "mid-rise", 8: "mid-rise"}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed_layer(layer, bits, grid="affine", activation_bits=8, prescaled=True):
    with torch.no_grad():
        layer.weight.copy_(random(*layer.weight.shape, seed=1))
    conv = isinstance(layer, nn.Conv2d)
    inputs = layer.in_channels if conv else layer.in_features
    clock = TimestepClock((7,))
    clock.set(7)
    quantized = {} if activation_bits is None else {
        "bits": activation_bits, "scale": torch.tensor([4.0 / 2**activation_bits]), "clock": clock,
        "zero_point": torch.tensor([float(2**activation_bits // 3)]),
    }  # fmt: skip
    prescale = torch.linspace(0.5, 1.5, inputs) if prescaled else None
    activation = ActivationQuantizer(channel_axis=1 if conv else -1, prescale=prescale, **quantized)
    twin = quantized_twin(layer, fit_weight(layer.weight.detach(), bits, grid=grid, exponent=2.0), activation)
    twin.freeze_()
    kind = PackedConv2d if conv else PackedLinear
    rounded = round_layer("layer", twin, "float32")
    return kind(layer, rounded.weight, twin.activation, UnpackCache(1)).to(DEVICE)


def decoded(layer):
    """Codes, zero-points (float64) and scales of every channel in the order of the layer."""
    weight, layout = layer.packed_weight, layer.layout
    stream, zeros = (Stream(t.cpu().numpy()) for t in (weight.codes, weight.zero_points))
    index = np.zeros(layout.channels, dtype=int)
    if layout.map_bits:
        index = Stream(weight.channel_map.cpu().numpy()).codes(layout.channels, layout.map_bits)
    codes = np.empty((layout.channels, layout.weights_per_channel), dtype=np.int64)
    zero = np.empty(layout.channels)
    for number, group in enumerate(layout.groups):
        rows = index == number
        codes[rows] = stream.codes(int(rows.sum()) * codes.shape[1], group.bits).reshape(-1, codes.shape[1])
        affine = group.grid == "affine"
        zero[rows] = zeros.codes(int(rows.sum()), group.bits) if affine else 2 ** (group.bits - 1) - 0.5
    return codes, zero, weight.scale.cpu().numpy().astype(np.float64)


def exact(layer, x):
    """The layer's output in float64, for an input that was rounded before: (..., K) or (B, C, H, W)."""
    codes, zero, scale = decoded(layer)
    weight = torch.from_numpy((codes - zero[:, None]) * scale[:, None]).view(layer.layout.shape)
    bias = None if layer.bias is None else layer.bias.detach().cpu().double()
    if isinstance(layer, PackedLinear):
        return functional.linear(x, weight, bias), functional.linear(x.abs(), weight.abs())
    walk = (layer.stride, layer.padding, layer.dilation)
    return functional.conv2d(x, weight, bias, *walk), functional.conv2d(x.abs(), weight.abs(), None, *walk)


def rounded_input(layer, x):
    with torch.no_grad():
        return layer.activation(x.to(DEVICE)).cpu().double()


def product(layer, x):
    with torch.no_grad():
        result = layer(x.to(DEVICE))
    assert layer.cache.held_bytes == 0  # nothing was unpacked
    return result.cpu()


def check(layer, x, terms, roundings=0.0):
    """Compare with the oracle: an error of `roundings` + one a term, of the sum of the terms' sizes."""
    expected, sizes = exact(layer, rounded_input(layer, x))
    found = product(layer, x)
    bias = 0.0 if layer.bias is None else layer.bias.detach().cpu().abs()
    bias = bias if layer.layout.shape[2:] == () else torch.as_tensor(bias).view(-1, *(1,) * (found.ndim - 2))
    allowed = ROUNDING * ((terms + 4) * sizes + 2 * bias) + roundings * expected.abs()
    assert found.shape == expected.shape and torch.all((found.double() - expected).abs() <= allowed)


@pytest.mark.parametrize("grid", ["affine", "mid-rise"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_integer_products_of_every_width_are_exact_up_to_the_last_rounding(bits, grid):
    layer = packed_layer(nn.Linear(70, 37, bias=False), torch.full((37,), bits), grid)
    x = random(19, 70)
    codes, zero, scale = decoded(layer)
    step, middle = 4.0 / 2**8, 2**8 // 3
    inputs = torch.round(x * layer.activation.prescale.cpu() / step).clamp(-middle, 255 - middle)
    twice = inputs.long().numpy() @ (2 * codes - (2 * zero).astype(np.int64)[:, None]).T  # whole numbers
    found = product(layer, x).numpy()
    # Three factors and the conversion of the sum: four roundings. Where the input's own rounding is a tie,
    # the division above may take the other side, so that inputs are compared first.
    assert torch.equal(inputs.double() * step, rounded_input(layer, x))
    np.testing.assert_allclose(found, twice * 0.5 * step * scale, rtol=4 * ROUNDING, atol=0)


@pytest.mark.parametrize("activation_bits", [2, 6, 8])
def test_channels_of_all_widths_come_back_in_the_order_of_the_layer(activation_bits):
    bits = torch.arange(50) * 7 % 8 + 1
    layer = packed_layer(nn.Linear(33, 50), bits, BOTH, activation_bits)
    check(layer, random(2, 9, 33), terms=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_point_inputs_are_summed_in_float32(dtype):
    layer = packed_layer(nn.Linear(70, 24, bias=False), torch.arange(24) % 8 + 1, BOTH, None, prescaled=False)
    layer.set_mode("packed", dtype)
    x = random(20, 70).to(dtype)
    expected, sizes = exact(layer, x.double())
    own = torch.finfo(dtype).eps / 2  # the result is rounded to the input's type
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        own *= 2  # Triton's interpreter cuts off where a GPU rounds
    assert torch.all(
        (product(layer, x).double() - expected).abs() <= 74 * ROUNDING * sizes + own * expected.abs()
    )


@pytest.mark.parametrize("activation_bits", [None, 5])
@pytest.mark.parametrize(
    ("walk", "size"),
    [
        ({"kernel_size": 3, "padding": 1}, (5, 6)),
        (
            {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "bias": False},
            (7, 6),
        ),
        ({"kernel_size": 1, "stride": 2}, (4, 4)),
    ],
)
def test_convolutions_pad_with_what_stands_for_zero(walk, size, activation_bits):
    layer = packed_layer(nn.Conv2d(5, 12, **walk), torch.arange(12) % 8 + 1, BOTH, activation_bits)
    x = random(2, 5, *size)
    check(layer, x, terms=0 if activation_bits else layer.layout.weights_per_channel)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(product(layer, last), product(layer, x))


@settings(max_examples=8, deadline=None)
@given(
    inputs=st.integers(1, 70), channels=st.integers(1, 70), rows=st.integers(1, 20), seed=st.integers(0, 99),
    activation_bits=st.sampled_from((None, 1, 4, 8, 12)),
)  # fmt: skip
def test_any_shape(inputs, channels, rows, seed, activation_bits):
    bits = torch.randint(1, 9, (channels,), generator=torch.Generator().manual_seed(seed))
    layer = packed_layer(nn.Linear(inputs, channels), bits, BOTH, activation_bits)
    check(layer, random(rows, inputs, seed=seed), terms=inputs)


def test_what_the_kernels_do_not_know_is_unpacked():
    layer = packed_layer(nn.Conv2d(4, 8, 3, groups=2), torch.full((8,), 3))
    x = random(1, 4, 5, 5).to(DEVICE)
    with torch.no_grad():
        first = layer(x)
        assert layer.cache.held_bytes > 0
        layer.kernels = False
        assert torch.equal(layer(x), first)
    linear = packed_layer(nn.Linear(5, 9), torch.arange(9) % 8 + 1)
    x = random(2, 5).to(DEVICE).requires_grad_()
    linear(x).sum().backward()
    assert x.grad.abs().sum() > 0 and linear.cache.held_bytes > 0


def test_a_network_says_the_same_with_and_without_kernels(tmp_path):
    plan, rounding = uniform_plan(small_denoiser(), 3), QuantSettings(activation_bits=6)
    quantized = quantize(small_denoiser(), small_calibration(), plan, rounding)
    network = load_packed(exported(tmp_path / "model", quantized), cache_mib=1).denoiser.network
    network.to(DEVICE)
    inputs = (random(1, 4, 8, 8).to(DEVICE), torch.tensor([0], device=DEVICE))
    classes = {"class_labels": torch.tensor([1], device=DEVICE)}
    unpacked = copy.deepcopy(network)
    use_kernels(unpacked, False)
    with torch.no_grad():
        found, expected = (model(*inputs, **classes).sample for model in (network, unpacked))
    assert network.conv_in.cache.held_bytes == 0 < unpacked.conv_in.cache.held_bytes
    # Roundings differ, and now and then one moves an input to the next of its 64 levels.
    assert (found - expected).norm() <= 0.02 * expected.norm()


def test_the_kernels_were_compared_with_unpacked_weights():
    assert kernels_for(torch.device(DEVICE)).__name__ == "mpqdm_core.packing.triton_kernels"
