from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_quant import SMALL, STEPS, small_calibration, small_denoiser, uniform_plan
from torch.nn import functional

from mpqdm_core.bit_report import report_bits
from mpqdm_core.denoiser import SamplerSettings, hash_network
from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.layers import QuantLayer
from mpqdm_core.quantization import QuantSettings, activation_ranges, layer_prescale, quantize
from mpqdm_core.sampling import sample
from mpqdm_core.weights import prescaled_weight


def predict(denoiser, slot=1):
    with torch.no_grad():
        return denoiser.network(**small_calibration().inputs.arguments(slot, torch.arange(6))).sample


def distance(denoiser):
    return float((predict(denoiser) - predict(small_denoiser())).square().mean())


@pytest.fixture(scope="module")
def four_bits():
    denoiser = small_denoiser()
    return quantize(denoiser, small_calibration(), uniform_plan(denoiser, 4))


def test_more_bits_come_closer(four_bits):
    denoiser, calibration = small_denoiser(), small_calibration()
    errors = [distance(quantize(denoiser, calibration, uniform_plan(denoiser, b)).denoiser) for b in (2, 8)]
    assert errors[0] > 3 * distance(four_bits.denoiser) > 10 * errors[1]
    assert errors[1] < 1e-2 * float(predict(denoiser).square().mean())


def test_the_full_precision_model_is_untouched(four_bits):
    denoiser = small_denoiser()
    assert hash_network(denoiser.network, denoiser.pipeline.scheduler) == denoiser.content_hash
    assert not any(isinstance(module, QuantLayer) for module in denoiser.network.modules())
    assert not any(module._forward_pre_hooks for module in denoiser.network.modules())
    mine = {id(parameter) for parameter in four_bits.denoiser.network.parameters()}
    assert not mine & {id(parameter) for parameter in denoiser.network.parameters()}


def test_frozen_pictures_are_the_same_bit_for_bit(four_bits):
    denoiser = small_denoiser()
    live = quantize(denoiser, small_calibration(), uniform_plan(denoiser, 4), freeze=False)
    drawn = [
        sample(model, labels=[0, 2], seeds=[5, 6], settings=STEPS)
        for model in (four_bits.denoiser, live.denoiser)
    ]
    np.testing.assert_array_equal(drawn[0].latents, drawn[1].latents)
    assert live.content_hash == four_bits.content_hash


def test_pictures_at_8_bits_are_close_to_full_precision():
    denoiser = small_denoiser()
    quantized = quantize(denoiser, small_calibration(), uniform_plan(denoiser, 8)).denoiser
    a, b = (sample(model, labels=[0, 2], seeds=[5, 6], settings=STEPS) for model in (denoiser, quantized))
    assert np.square(a.latents - b.latents).mean() < 1e-2 * np.square(a.latents).mean()


def test_a_channel_keeps_its_levels_when_others_change_bits(four_bits):  # g = 0 is uniform, bit for bit
    denoiser = small_denoiser()
    plan = uniform_plan(denoiser, 4)
    bits = plan.bits.copy()
    bits[1::3], bits[2::3] = 5, 3
    swapped = quantize(denoiser, small_calibration(), replace(plan, bits=bits))
    for index, (name, layer) in enumerate(swapped.layers.items()):
        mine = layer.bits == 4
        assert torch.equal(layer.weight[mine], four_bits.layers[name].weight[mine]), index


def test_prescaling_leaves_every_layer_s_full_precision_output():
    denoiser, calibration = small_denoiser(), small_calibration()
    for spec in denoiser.quantizable_layers:
        layer = denoiser.network.get_submodule(spec.name)
        stats = calibration.layers[spec.name]
        delta = layer_prescale(layer, spec.groups, stats, 0.5)
        x, w = stats.rows[0], layer.weight.flatten(2).sum(-1) if spec.kind == "conv" else layer.weight
        plain = functional.linear(x, w)
        scaled_weight = prescaled_weight(layer.weight, delta)
        scaled_weight = scaled_weight.flatten(2).sum(-1) if spec.kind == "conv" else scaled_weight
        got = functional.linear(x * delta, scaled_weight)
        assert (got - plain).abs().max() <= 1e-5 * max(1.0, float(plain.abs().max())), spec.name


def test_every_setting_changes_the_result(four_bits):
    denoiser, calibration = small_denoiser(), small_calibration()
    reference = predict(four_bits.denoiser)
    for changes in (
        {"activation_bits": None},
        {"activation_bits": 4},
        {"grid": "affine"},
        {"grid": {4: "affine", 8: "mid-rise"}},
        {"range_exponent": 2.0},
        {"prescale_alpha": None},
        {"exempt_bits": None},
    ):
        other = quantize(denoiser, calibration, uniform_plan(denoiser, 4), QuantSettings(**changes))
        assert not torch.equal(predict(other.denoiser), reference), changes
        assert other.content_hash != four_bits.content_hash


def test_exempt_layers_are_rounded_to_8_bits_or_left(four_bits):
    denoiser = small_denoiser()
    names = set(four_bits.layers)
    at_8 = {layer.name for layer in denoiser.exempt_layers if layer.exempt == "8-bit"}
    assert names == at_8 | {layer.name for layer in denoiser.quantizable_layers}
    assert all(four_bits.layers[name].bits.eq(8).all() for name in at_8)
    assert all(four_bits.layers[name].activation.prescale is None for name in at_8)


def test_another_number_of_steps_uses_the_nearest_ranges(four_bits, caplog):
    settings = SamplerSettings(num_inference_steps=4)
    drawn = sample(four_bits.denoiser, labels=[1], seeds=[0], settings=settings)
    assert np.isfinite(drawn.latents).all()
    assert any("no activation range for timestep" in record.getMessage() for record in caplog.records)


def test_a_copy_of_the_network_keeps_its_own_clock(four_bits):
    twin = copy.deepcopy(four_bits.denoiser.network)
    arguments = small_calibration().inputs.arguments(2, torch.arange(2))
    with torch.no_grad():
        assert torch.equal(twin(**arguments).sample, four_bits.denoiser.network(**arguments).sample)


def test_activation_ranges_by_hand():
    stats = small_calibration().layers["conv_in"]
    scale, zero_point = activation_ranges(stats, None, 8, 2.4)
    assert scale.shape == zero_point.shape == (3,)
    # 8 bits: the range is cut little or not at all, and zero is a level inside it
    assert ((scale * 255) <= (stats.high - stats.low) * 1.01).all()
    assert ((scale * 255) >= (stats.high - stats.low) * 0.5).all()
    assert torch.equal(zero_point, zero_point.round())


def test_bits_by_hand(four_bits):
    denoiser, report = small_denoiser(), four_bits.bit_report
    layers = denoiser.quantizable_layers
    weights = sum(s.out_channels * s.weights_per_channel for s in layers)
    channels = sum(s.out_channels for s in layers)
    assert report.nominal_bits == 4.0
    overhead = 16 * channels + 16 * sum(s.in_channels for s in layers) + len(layers) * 3 * (16 + 8)
    assert report.effective_bits == pytest.approx(
        4 + overhead / weights
    )  # mid-rise: no zero-points; one width: no map
    assert report.bytes_estimate == math.ceil(sum(item.bits for item in report.items) / 8)
    assert report.bytes_full_precision == 4 * sum(p.numel() for p in denoiser.network.parameters())
    exempt = {layer.name: layer for layer in report.exempt}
    assert exempt["conv_in"].bits == 8
    assert all(layer.bits == 16 for layer in report.exempt if layer.exempt == "full precision")
    share = sum(s.parameters for s in denoiser.exempt_layers) / denoiser.parameters
    assert report.exempt_parameter_share == pytest.approx(share)
    assert 0 < report.exempt_mac_share < 1


def test_maps_and_zero_points_are_counted_where_they_are_needed():
    denoiser = small_denoiser()
    plan = uniform_plan(denoiser, 4)
    bits = plan.bits.copy()
    bits[:4] = [2, 3, 5, 4]  # four widths in the first layer: two bits for each of its channels
    mixed = replace(plan, bits=bits)

    def items(plan, **settings):
        report = report_bits(denoiser, plan, QuantSettings(**settings), timesteps=3)
        return {item.name: item.bits for item in report.items}

    first = denoiser.quantizable_layers[0]
    assert items(plan)["bits of each channel"] == 0
    assert items(mixed)["bits of each channel"] == 2 * first.out_channels
    assert items(mixed)["weight zero-points"] == 0
    assert items(mixed, grid="affine")["weight zero-points"] == int(bits.sum())
    assert items(mixed, grid={2: "mid-rise"})["weight zero-points"] == int(bits.sum()) - 2
    assert items(plan, activation_bits=None)["activation ranges by timestep"] == 0
    assert items(plan, prescale_alpha=None)["pre-scale factors"] == 0
    exempt_values = items(plan, exempt_bits=None)["exempt layers' weights"]
    assert exempt_values == 16 * sum(s.out_channels * s.weights_per_channel for s in denoiser.exempt_layers)


def test_what_belongs_to_another_model_is_refused():
    denoiser, calibration = small_denoiser(), small_calibration()
    plan = uniform_plan(denoiser, 4)
    with pytest.raises(DataError, match="taken from another model than small"):
        quantize(denoiser, replace(calibration, denoiser_hash="x"), plan)
    with pytest.raises(DataError, match="no statistics for layer conv_in"):
        layers = {name: stats for name, stats in calibration.layers.items() if name != "conv_in"}
        quantize(denoiser, replace(calibration, layers=layers), plan)
    with pytest.raises(DataError, match="bit plan is for other layers"):
        quantize(denoiser, calibration, replace(plan, layer_names=tuple(f"x{n}" for n in plan.layer_names)))


def test_cancelling_leaves_the_model_as_it_was():
    denoiser = small_denoiser()

    def report(done, total, text):
        if done == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled, match="stop"):
        quantize(denoiser, small_calibration(), uniform_plan(denoiser, 4), report=report)
    assert hash_network(denoiser.network, denoiser.pipeline.scheduler) == denoiser.content_hash
    assert not any(module._forward_pre_hooks for module in denoiser.network.modules())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_bits": 9}, r"activation_bits must be in 1\.\.8.*got 9"),
        ({"grid": "log"}, "grid must be one of affine, mid-rise; got 'log'"),
        ({"grid": {9: "affine"}}, r"bits 1\.\.8, got \[9\]"),
        ({"range_exponent": 0.0}, r"range_exponent .* got 0\.0"),
        ({"prescale_alpha": 1.5}, r"prescale_alpha .* got 1\.5"),
        ({"exempt_bits": 4}, "exempt_bits must be 8 or None, got 4"),
    ],
)
def test_settings_are_checked(changes, words):
    with pytest.raises(SettingsError, match=words):
        QuantSettings(**changes)


def test_settings_travel_as_plain_json_values():
    assert QuantSettings().as_dict() == {
        "activation_bits": 8,
        "grid": "mid-rise",
        "range_exponent": 2.4,
        "prescale_alpha": 0.5,
        "exempt_bits": 8,
    }
    assert QuantSettings(grid={2: "affine", 1: "mid-rise"}).as_dict()["grid"] == "1:mid-rise,2:affine"
    assert SMALL.sampler == STEPS
