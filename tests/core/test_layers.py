from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.layers import QuantConv2d, QuantLinear, quantized_twin
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight, prescaled_weight


def twin_of(layer, bits, prescale=None, activation_bits=6):
    axis = 1 if isinstance(layer, nn.Conv2d) else -1
    clock = TimestepClock((7,))
    clock.set(7)
    table = {"scale": torch.tensor([0.11]), "zero_point": torch.tensor([31.0]), "clock": clock}
    activation = ActivationQuantizer(
        channel_axis=axis, prescale=prescale, bits=activation_bits, **(table if activation_bits else {})
    )
    scaled = prescaled_weight(layer.weight.detach(), prescale, getattr(layer, "groups", 1))
    return quantized_twin(layer, fit_weight(scaled, bits, grid="mid-rise", exponent=2.4), activation)


LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "groups": lambda: nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2, bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "linear": lambda: nn.Linear(4, 6),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]()


def inputs(layer):
    return torch.randn(2, 4, 9, 9) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5, 4)


def test_many_bits_come_close_to_the_layer(layer):
    x = inputs(layer)
    twin = twin_of(layer, torch.full((6,), 8), torch.tensor([0.5, 1.0, 2.0, 3.0]), activation_bits=None)
    with torch.no_grad():
        exact, got = layer(x), twin(x)
    assert got.shape == exact.shape
    # half a step per weight: |error| <= sum |x delta| * s / 2, and s <= 2 max|w'| / 256
    bound = (x.abs() * (torch.tensor([0.5, 1, 2, 3.0]).view(4, 1, 1) if x.ndim == 4 else 3.0)).amax() * 9 * 4
    step = 2 * twin.quantized_weight().abs().max() / 255
    assert (got - exact).abs().max() <= bound * step / 2


def test_freezing_changes_nothing_but_speed(layer):
    x = inputs(layer)
    twin = twin_of(layer, torch.tensor([1, 2, 3, 4, 5, 8]), torch.tensor([0.5, 1.0, 2.0, 3.0]))
    with torch.no_grad():
        before = twin(x)
        twin.freeze_()
        twin.freeze_()  # a second time is nothing
        assert twin.frozen
        assert torch.equal(twin(x), before)
    kept = twin.weight.detach().flatten(1)
    assert [len(row.unique()) <= 2**b for row, b in zip(kept, twin.bits.tolist(), strict=True)] == [True] * 6


def test_the_original_layer_is_left_as_it_is(layer):
    before = layer.weight.detach().clone()
    twin = twin_of(layer, torch.full((6,), 2))
    twin.freeze_()
    assert torch.equal(layer.weight, before)
    assert twin.weight.data_ptr() != layer.weight.data_ptr()


def test_linear_output_is_the_product_of_rounded_parts():
    torch.manual_seed(0)
    layer = nn.Linear(4, 6)
    twin = twin_of(layer, torch.full((6,), 3))
    x = torch.randn(5, 4)
    rounded = (torch.clamp(torch.round(x / 0.11) + 31, 0, 63) - 31) * 0.11
    with torch.no_grad():
        expected = functional.linear(rounded, twin.quantized_weight()) + layer.bias
        torch.testing.assert_close(twin(x), expected)
    assert isinstance(twin, QuantLinear)
    assert (twin.in_features, twin.out_features, twin.out_channels) == (4, 6, 6)
    assert "bits=3.00, activation_bits=6" in repr(twin)


def test_gradients_reach_what_can_be_trained():
    torch.manual_seed(0)
    twin = twin_of(nn.Conv2d(4, 6, 3), torch.full((6,), 3))
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    twin.requires_grad_(True)
    twin(torch.randn(1, 4, 5, 5)).square().sum().backward()
    for name in ("weight", "weight_scale", "activation.scale"):
        assert twin.get_parameter(name).grad.abs().sum() > 0


def test_what_is_refused():
    with pytest.raises(SettingsError, match="padding_mode 'reflect'"):
        twin_of(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), torch.full((6,), 4))
    activation = ActivationQuantizer(channel_axis=1)
    params = fit_weight(torch.randn(3, 4), torch.full((3,), 4), grid="affine", exponent=2.4)
    with pytest.raises(ShapeError, match=r"bits for 6 channels, got shape \(3,\)"):
        QuantConv2d(nn.Conv2d(4, 6, 3), params, activation)
    with pytest.raises(SettingsError, match="got Identity"):
        quantized_twin(nn.Identity(), params, activation)
