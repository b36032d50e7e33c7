"""Packed layers: the same results in every mode, a bounded cache, and tables that keep their type."""

import copy

import pytest
import torch
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError
from mpqdm_core.layers import quantized_twin
from mpqdm_core.packing.packed_layers import PackedConv2d, PackedLinear
from mpqdm_core.packing.rounding import round_layer
from mpqdm_core.packing.unpack_cache import UnpackCache
from mpqdm_core.weights import fit_weight

MIB = 2**20


def packed_and_plain(layer, cache=None, grid="affine"):
    """A packed layer, and the simulated one it was packed from."""
    bits = torch.arange(layer.weight.shape[0]) % 8 + 1
    params = fit_weight(layer.weight.detach(), bits, grid=grid, exponent=2.0)
    conv = isinstance(layer, nn.Conv2d)
    inputs = layer.in_channels if conv else layer.in_features
    prescale = torch.linspace(0.5, 1.5, inputs)
    plain = quantized_twin(
        layer, params, ActivationQuantizer(channel_axis=1 if conv else -1, prescale=prescale)
    )
    plain.freeze_()
    rounded = round_layer("layer", plain, "float32")
    kind = PackedConv2d if conv else PackedLinear
    return kind(layer, rounded.weight, plain.activation, cache or UnpackCache(0)), plain


def strided(**settings):
    return nn.Conv2d(4, 12, 3, **settings).requires_grad_(False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 9), (3, 7, 5)),
        (nn.Linear(5, 9, bias=False), (5,)),
        (strided(padding=1), (2, 4, 6, 6)),
        (strided(stride=2, padding=(1, 0), dilation=2, bias=False), (1, 4, 9, 9)),
        (strided(groups=2), (2, 4, 5, 5)),
    ],
)
@pytest.mark.parametrize("grid", ["affine", "mid-rise"])
def test_every_mode_computes_what_the_simulated_layer_does(layer, shape, grid):
    packed, plain = packed_and_plain(layer, grid=grid)
    x = torch.randn(shape)
    expected = plain(x)
    assert torch.equal(packed(x), expected) and packed.mode == "packed"
    packed.freeze_()
    assert torch.equal(packed(x), expected) and packed.mode == "frozen"
    packed.set_mode("packed")
    assert torch.equal(packed(x), expected)


def test_a_packed_layer_says_what_it_is_made_of():
    packed, plain = packed_and_plain(nn.Linear(5, 9))
    assert torch.equal(packed.weight, plain.weight)
    assert torch.equal(packed.bits, plain.bits) and torch.equal(packed.mid_rise, plain.mid_rise)
    assert torch.equal(packed.weight_params.zero_point, plain.weight_zero_point)
    assert packed.out_channels == 9 and packed.frozen
    assert "2 x 1 bits affine" in repr(packed) and "mode=packed" in repr(packed)


def test_bfloat16_weights_are_the_float32_ones_rounded_once():
    packed, plain = packed_and_plain(nn.Linear(5, 9))
    packed.set_mode("frozen", torch.bfloat16)
    assert torch.equal(packed.quantized_weight(), plain.weight.bfloat16())
    x = torch.randn(3, 5)
    assert packed(x).dtype == torch.float32
    exact = (x * plain.activation.prescale).double() @ plain.weight.double().T + plain.bias.double()
    # Two factors and the result with 8 significant bits each; products of 5 terms.
    bound = 3 * 2.0**-8 * ((x * plain.activation.prescale).abs() @ plain.weight.abs().T + plain.bias.abs())
    assert torch.all((packed(x) - exact).abs() <= bound + 1e-6)


def test_the_cache_keeps_what_fits_and_no_more():
    cache = UnpackCache(1)
    half, large = nn.Linear(256, 512), nn.Linear(1024, 512)  # 0.5 MiB and 2 MiB unpacked
    first, second = packed_and_plain(half, cache)[0], packed_and_plain(half, cache)[0]
    third, fourth = packed_and_plain(half, cache)[0], packed_and_plain(large, cache)[0]
    for layer in (first, fourth, second, third):
        layer.quantized_weight()
    assert cache.held_bytes == MIB
    assert first.quantized_weight() is first.quantized_weight()
    assert second.quantized_weight() is second.quantized_weight()
    assert third.quantized_weight() is not third.quantized_weight()
    first.set_mode("frozen")
    assert cache.held_bytes == MIB // 2
    third.quantized_weight()
    assert third.quantized_weight() is third.quantized_weight()


def test_gradients_reach_the_input_after_a_call_in_inference_mode():
    packed, plain = packed_and_plain(nn.Linear(5, 9), UnpackCache(1))
    with torch.inference_mode():
        packed(torch.randn(2, 5))
    x = torch.randn(2, 5, requires_grad=True)
    packed(x).sum().backward()
    torch.testing.assert_close(x.grad, plain.weight.sum(dim=0).expand(2, 5) * plain.activation.prescale)


def test_without_a_cache_nothing_stays_unpacked():
    packed, _ = packed_and_plain(nn.Linear(64, 64), UnpackCache(0))
    packed(torch.randn(1, 64))
    assert packed.cache.held_bytes == 0
    held = sum(tensor.nbytes for tensor in (*packed.buffers(), *packed.parameters()))
    assert held < 64 * 64 * 4 / 4


def test_a_copy_has_a_cache_of_its_own():
    packed, _ = packed_and_plain(nn.Linear(5, 9), UnpackCache(1))
    packed.quantized_weight()
    again = copy.deepcopy(packed)
    assert again.cache is not packed.cache
    assert (again.cache.limit_mib, again.cache.held_bytes) == (1, 0)
    assert torch.equal(again.quantized_weight(), packed.quantized_weight())


def test_moving_is_allowed_and_casting_is_not():
    packed, plain = packed_and_plain(nn.Linear(5, 9), UnpackCache(1))
    packed.quantized_weight()
    assert torch.equal(packed.to("cpu").quantized_weight(), plain.weight)
    with pytest.raises(SettingsError, match=r"choose another type for the arithmetic with set_mode"):
        packed.half()
    assert packed.weight_scale.dtype == torch.float32


def test_settings_that_do_not_exist_are_refused():
    packed, _ = packed_and_plain(nn.Linear(5, 9))
    with pytest.raises(SettingsError, match="mode must be one of packed, frozen, got 'thawed'"):
        packed.set_mode("thawed")
    with pytest.raises(SettingsError, match=r"floating-point type, got torch\.int8"):
        packed.set_mode("packed", torch.int8)
    with pytest.raises(SettingsError, match="0 MiB or more, got -1"):
        UnpackCache(-1)
