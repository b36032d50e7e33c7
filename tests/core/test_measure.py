from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_quant import by_hand, small_calibration, small_denoiser
from torch import nn

import mpqdm_core.measure
from mpqdm_core.denoiser import hash_network
from mpqdm_core.errors import Cancelled, DataError, LoadError, SettingsError
from mpqdm_core.kurtosis import channel_kurtosis
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import prepare_layer
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.weights import fit_weight

EVERYTHING = RowSettings(images_per_step=99, positions=9999)


class Network(nn.Module):
    """A grouped, strided convolution, then a linear layer on its pixels; the timestep scales the input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2)
        self.linear = nn.Linear(6, 3)

    def forward(self, sample, timestep):
        features = self.conv(sample * (1 + timestep / 10))  # (B, 6, H, W)
        return self.linear(torch.tanh(features).movedim(1, -1))


@pytest.fixture(scope="module")
def measured():
    torch.manual_seed(0)
    return by_hand(Network(), torch.randn(2, 3, 4, 5, 5), [20, 10])


def slow_patches(x, channels, kernel, stride, padding):
    """Rows of a convolution's input, by loops: (B, H', W', channels * kh * kw)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    high = (padded.shape[2] - kernel[0]) // stride[0] + 1
    wide = (padded.shape[3] - kernel[1]) // stride[1] + 1
    return np.array(
        [
            [
                [
                    image[
                        channels,
                        i * stride[0] : i * stride[0] + kernel[0],
                        j * stride[1] : j * stride[1] + kernel[1],
                    ].ravel()
                    for j in range(wide)
                ]
                for i in range(high)
            ]
            for image in padded
        ]
    )


def slow_round(w, bits, scale):
    """Mid-rise levels of one channel."""
    return (np.clip(np.floor(w / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * scale


@pytest.mark.parametrize("activation_bits", [4, None])
@pytest.mark.parametrize("alpha", [0.5, None])
def test_every_entry_equals_a_slow_loop(measured, activation_bits, alpha):
    denoiser, calibration = measured
    settings = QuantSettings(activation_bits=activation_bits, prescale_alpha=alpha)
    table = measure_error_table(denoiser, calibration, settings, rows=EVERYTHING)
    assert table.layer_names == ("conv", "linear")
    assert table.error.shape == (9, 8)
    assert table.weights_per_channel.tolist() == [2 * 3 * 2, 6]
    network, clock = denoiser.network, TimestepClock(calibration.timesteps)
    for spec in denoiser.quantizable_layers:
        layer = network.get_submodule(spec.name)
        prepared = prepare_layer(layer, spec, calibration.layers[spec.name], settings, clock)
        delta = np.ones(spec.in_channels) if alpha is None else prepared.activation.prescale.double().numpy()
        scales = {
            b: fit_weight(
                prepared.weight, torch.full((spec.out_channels,), b), grid="mid-rise", exponent=2.4
            ).scale
            for b in (1, 3, 8)
        }
        for channel in range(spec.out_channels):
            errors = {b: [] for b in scales}
            energy = []
            for slot, timestep in enumerate(calibration.timesteps):
                x = calibration.inputs.sample[slot] * (1 + timestep / 10)
                if spec.kind == "linear":
                    x = torch.tanh(network.conv(x))
                x = x.double().numpy()
                scaled = x * delta[:, None, None]
                if activation_bits is not None:
                    step = float(prepared.activation.scale[slot])
                    zero = float(prepared.activation.zero_point[slot])
                    scaled = (
                        np.clip(np.round(scaled / step) + zero, 0, 2**activation_bits - 1) - zero
                    ) * step
                if spec.kind == "conv":
                    inputs = slice(0, 2) if channel < 3 else slice(2, 4)
                    rows, rounded_rows = (
                        slow_patches(v, inputs, (3, 2), (2, 1), (1, 0)) for v in (x, scaled)
                    )
                    factors = np.repeat(delta[inputs], 6)
                else:
                    rows, rounded_rows, factors = x.transpose(0, 2, 3, 1), scaled.transpose(0, 2, 3, 1), delta
                w = layer.weight[channel].double().numpy().ravel()
                energy.append(np.square(rows @ w))
                for b, scale in scales.items():
                    w_hat = slow_round(w / factors, b, float(scale[channel]))
                    errors[b].append(np.square(rows @ w - rounded_rows @ w_hat))
            row = table.layer_slice(spec.name).start + channel
            assert table.energy[row] == pytest.approx(np.mean(energy), rel=1e-4)
            for b in scales:
                assert table.error[row, b - 1] == pytest.approx(np.mean(errors[b]), rel=1e-3), (spec.name, b)


def test_kurtosis_is_that_of_the_prescaled_weight(measured):
    denoiser, calibration = measured
    table = measure_error_table(denoiser, calibration)
    spec = denoiser.layer("linear")
    prepared = prepare_layer(
        denoiser.network.linear, spec, calibration.layers["linear"], QuantSettings(), TimestepClock((20, 10))
    )
    np.testing.assert_allclose(table.kurtosis[6:], channel_kurtosis(prepared.weight), rtol=1e-6)


def test_groups_of_layers_that_fit_in_memory_give_the_same_table(measured, monkeypatch):
    denoiser, calibration = measured
    whole = measure_error_table(denoiser, calibration, rows=EVERYTHING)
    monkeypatch.setattr(mpqdm_core.measure, "MAX_STACK_BYTES", 1)
    monkeypatch.setattr(mpqdm_core.measure, "MAX_ROW_BYTES", 1)
    steps = []
    split = measure_error_table(
        denoiser, calibration, report=lambda done, total, text: steps.append((done, total)), rows=EVERYTHING
    )
    np.testing.assert_allclose(split.error, whole.error, rtol=1e-6)
    assert steps == [(done, 2 + 2 * 2) for done in range(7)]


def test_a_large_model_is_replayed_once_and_its_rows_do_not_depend_on_the_memory(monkeypatch):
    denoiser, calibration = small_denoiser(), small_calibration()
    rows = RowSettings(images_per_step=4, positions=5)
    monkeypatch.setattr(mpqdm_core.measure, "MAX_STACK_BYTES", 1)
    tables, replays = [], []
    for limit in (2**30, 300_000, 1):
        monkeypatch.setattr(mpqdm_core.measure, "MAX_ROW_BYTES", limit)
        told = []
        tables.append(
            measure_error_table(
                denoiser, calibration, rows=rows, report=lambda *event, told=told: told.append(event)
            )
        )
        replays.append(sum("at timestep" in text for _, _, text in told) // len(calibration.timesteps))
        assert [done for done, _, _ in told] == list(range(told[0][1] + 1))
    assert replays[0] == 1 < replays[1] < replays[2] == len(denoiser.quantizable_layers)
    monkeypatch.setattr(mpqdm_core.measure, "MAX_SLICE_BYTES", 1)  # every output channel by itself
    alone = measure_error_table(denoiser, calibration, rows=rows)
    np.testing.assert_allclose(alone.error, tables[0].error, rtol=1e-3)  # products of float32
    np.testing.assert_array_equal(alone.kurtosis, tables[0].kurtosis)
    for other in tables[1:]:
        np.testing.assert_array_equal(other.error, tables[0].error)
        np.testing.assert_array_equal(other.energy, tables[0].energy)


def test_a_killed_measurement_goes_on_and_gives_the_same_table(measured, monkeypatch, tmp_path):
    denoiser, calibration = measured
    monkeypatch.setattr(mpqdm_core.measure, "MAX_STACK_BYTES", 1)
    monkeypatch.setattr(mpqdm_core.measure, "MAX_ROW_BYTES", 1)  # every layer alone
    whole = measure_error_table(denoiser, calibration, rows=EVERYTHING)
    file, heard = tmp_path / "table.measuring", []

    def killed_at_the_second_layer(done, total, text):
        if "rounding linear" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_error_table(
            denoiser, calibration, report=killed_at_the_second_layer, rows=EVERYTHING, checkpoint=file
        )
    with pytest.raises(DataError, match=r"table.measuring is of another measurement"):
        measure_error_table(denoiser, calibration, QuantSettings(activation_bits=3), checkpoint=file)
    resumed = measure_error_table(
        denoiser, calibration, report=lambda *told: heard.append(told), rows=EVERYTHING, checkpoint=file
    )
    assert not any("rounding conv" in text for _, _, text in heard)
    assert [done for done, _, _ in heard] == list(range(3, 7)) and not file.exists()
    np.testing.assert_array_equal(resumed.error, whole.error)
    np.testing.assert_array_equal(resumed.energy, whole.energy)
    np.testing.assert_array_equal(resumed.kurtosis, whole.kurtosis)
    file.write_bytes(b"PK no archive")
    with pytest.raises(LoadError, match="is damaged"):
        measure_error_table(denoiser, calibration, rows=EVERYTHING, checkpoint=file)


def test_a_whole_network_gets_a_sound_table():
    denoiser, calibration = small_denoiser(), small_calibration()
    rows = RowSettings(images_per_step=4, positions=8)
    lambdas = {s.name: torch.arange(s.out_channels) + 0.5 for s in denoiser.quantizable_layers}
    table = measure_error_table(denoiser, calibration, rows=rows, sensitivity=lambdas)
    assert table.layer_names == tuple(layer.name for layer in denoiser.quantizable_layers)
    assert table.error.shape == (sum(s.out_channels for s in denoiser.quantizable_layers), 8)
    relative = np.median(table.error / table.energy[:, None], axis=0)
    assert (np.diff(relative) < 0).all()
    assert relative[7] < 1e-3 < 0.1 < relative[0]
    assert table.sensitivity[:3].tolist() == [0.5, 1.5, 2.5]
    assert table.settings["images_per_step"] == 4
    assert table.settings["calibration_hash"] == calibration.content_hash
    again = measure_error_table(denoiser, calibration, rows=rows, sensitivity=lambdas)
    assert again.content_hash == table.content_hash
    assert hash_network(denoiser.network, denoiser.pipeline.scheduler) == denoiser.content_hash


def test_dead_channels_cost_nothing_and_constant_ones_are_finite():
    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        network.conv.weight[0] = 0.0
        network.conv.weight[1] = 0.3
    denoiser, calibration = by_hand(network, torch.randn(2, 3, 4, 5, 5), [20, 10])
    table = measure_error_table(denoiser, calibration)
    assert table.energy[0] == 0.0
    assert table.error[0].max() < 1e-12
    assert np.isfinite(table.error).all()
    assert table.kurtosis[0] == 0.0


@pytest.mark.parametrize("when", [1, 3])
def test_cancelling_leaves_no_hooks(measured, when):
    denoiser, calibration = measured

    def report(done, total, text):
        if done == when:
            raise Cancelled("stop")

    with pytest.raises(Cancelled, match="stop"):
        measure_error_table(denoiser, calibration, report=report)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in denoiser.network.modules())


def test_what_is_refused(measured):
    denoiser, calibration = measured
    with pytest.raises(DataError, match="taken from another model than by-hand"):
        measure_error_table(denoiser, replace(calibration, denoiser_hash="x"))
    with pytest.raises(SettingsError, match="positions must be at least 1, got 0"):
        RowSettings(positions=0)
