"""Layers that multiply whole numbers, against those they take the place of and against plain integers."""

from functools import cache

import numpy as np
import pytest
import torch
from tiny_quant import small_calibration, small_denoiser, uniform_plan
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError
from mpqdm_core.integer_layers import integer_twin, integers_supported, multiply_integers_
from mpqdm_core.layers import quantized_twin
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight

pytestmark = pytest.mark.skipif(not integers_supported(), reason="this CPU has no products of bytes")

LAYERS = {
    "plain": lambda: nn.Conv2d(8, 6, 3, padding=1),
    "groups": lambda: nn.Conv2d(8, 6, (3, 1), stride=2, padding=(1, 0), groups=2, bias=False),
    "dilated": lambda: nn.Conv2d(8, 6, 3, padding="same", dilation=2),
    "linear": lambda: nn.Linear(8, 6),
    "linear-without-bias": lambda: nn.Linear(8, 6, bias=False),
}


def frozen(layer, grid, bits=(1, 2, 3, 4, 5, 7), zero_point=21.0, activation_bits=6):
    clock = TimestepClock((7,))
    clock.set(7)
    activation = ActivationQuantizer(
        channel_axis=1 if isinstance(layer, nn.Conv2d) else -1, bits=activation_bits, clock=clock,
        scale=torch.tensor([0.11]), zero_point=torch.tensor([zero_point]),
    )  # fmt: skip
    params = fit_weight(layer.weight.detach(), torch.tensor(bits), grid=grid, exponent=2.4)
    twin = quantized_twin(layer, params, activation)
    twin.freeze_()
    return twin


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]()


@pytest.mark.parametrize("grid", ["affine", "mid-rise"])
def test_the_result_is_that_of_the_simulated_layer(layer, grid):
    simulated = frozen(layer, grid)
    x = torch.randn(2, 8, 9, 9) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5, 8)
    with torch.no_grad():
        wanted, got = simulated(x), integer_twin(simulated)(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_sums_are_exact_where_float32_would_round():
    torch.manual_seed(0)
    wide = nn.Linear(40_000, 1, bias=False)
    simulated = frozen(wide, "affine", bits=(7,), zero_point=0.0, activation_bits=8)
    x = torch.rand(3, 40_000) * 28
    with torch.no_grad():
        got = integer_twin(simulated)(x).double().numpy()
    scale = float(simulated.weight_scale)
    steps = np.rint(simulated.weight.numpy().astype(np.float64) / scale).astype(np.int64)
    codes = np.clip(np.rint((x * (torch.tensor(1.0) / 0.11)).numpy()), 0, 255).astype(np.int64)
    wanted = (codes @ steps.T) * (float(np.float32(0.11)) * scale)
    np.testing.assert_allclose(got, wanted, rtol=3e-7)


def test_what_does_not_fit_a_byte_stays_simulated():
    torch.manual_seed(0)
    linear = nn.Linear(8, 6)
    assert integer_twin(frozen(linear, "affine")) is not None
    assert integer_twin(frozen(linear, "affine", zero_point=20.5)) is None
    assert integer_twin(frozen(linear, "affine", activation_bits=9)) is None
    with torch.no_grad():
        linear.weight.abs_()  # 8 bits of one sign: levels up to 255
    assert integer_twin(frozen(linear, "affine", bits=(8,) * 6)) is None


def test_padding_that_differs_between_sides_and_sums_beyond_32_bits_stay_simulated():
    uneven = nn.Conv2d(8, 6, 2, padding="same")
    assert integer_twin(frozen(uneven, "affine")) is None
    assert 66_312 * 255 * 127 > 2**31 - 1 >= 66_311 * 255 * 127
    for width, fits in ((66_311, True), (66_312, False)):
        twin = integer_twin(frozen(nn.Linear(width, 1), "affine", bits=(2,), activation_bits=8))
        assert (twin is not None) == fits


def test_a_layer_that_may_still_change_is_refused():
    network = quantize(
        small_denoiser(), small_calibration(), uniform_plan(small_denoiser(), 3), freeze=False
    ).denoiser.network
    with pytest.raises(SettingsError, match="only a frozen layer multiplies whole numbers"):
        multiply_integers_(network)


@cache
def drawn(integers):
    settings = QuantSettings(activation_bits=8)
    student = quantize(small_denoiser(), small_calibration(), uniform_plan(small_denoiser(), 4), settings)
    changed = multiply_integers_(student.denoiser.network) if integers else ()
    return changed, sample(student.denoiser, labels=[0, 1, 2], seeds=range(3)), student


def test_a_network_draws_what_it_drew():
    changed, got, student = drawn(integers=True)
    assert set(student.plan.layer_names) <= set(changed)
    _, wanted, _ = drawn(integers=False)
    difference = np.abs(got.latents - wanted.latents).mean()
    exact = sample(small_denoiser(), labels=[0, 1, 2], seeds=range(3))
    assert difference < 0.05 * np.abs(exact.latents - wanted.latents).mean()
