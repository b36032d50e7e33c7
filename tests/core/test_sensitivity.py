from __future__ import annotations

import pytest
import torch
from tiny_quant import by_hand, small_calibration, small_denoiser
from torch import nn

from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.sensitivity import channel_sensitivity


class Linear(nn.Module):
    """eps = last(first(x)) has the constant Jacobian last.weight with respect to the first layer's output."""

    def __init__(self, outputs):
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.last = nn.Linear(4, outputs)

    def forward(self, sample, timestep):
        return self.last(self.first(sample))


class Curved(nn.Module):
    """One number for each sample, through a convolution, an in-between linear layer and a bend."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.time = nn.Linear(1, 3)  # depends on the timestep alone, as time embeddings do
        self.mix = nn.Linear(3, 1)

    def forward(self, sample, timestep):
        shift = self.time(timestep.reshape(1, 1).to(sample) / 10.0)  # (1, 3)
        features = torch.tanh(self.conv(sample) + shift[:, :, None, None])
        return self.mix(features.square().mean(dim=(2, 3)))


def test_one_output_is_exact():  # (v J)**2 = J**2 for v = +-1
    torch.manual_seed(0)
    denoiser, calibration = by_hand(Linear(1), torch.randn(2, 6, 5), [20, 10])
    got = channel_sensitivity(denoiser, calibration)
    torch.testing.assert_close(got["first"], denoiser.network.last.weight[0].double().square())
    torch.testing.assert_close(got["last"], torch.ones(1, dtype=torch.float64))


def test_many_outputs_are_met_on_average():
    torch.manual_seed(0)
    denoiser, calibration = by_hand(Linear(3), torch.randn(2, 60, 5), [20, 10])
    got = channel_sensitivity(denoiser, calibration, probes=20, images_per_step=60)
    # each draw has at most the variance of (v J)**2 <= 2 |J|**4, and there are 2400: standard error below 3%
    torch.testing.assert_close(
        got["first"], denoiser.network.last.weight.double().square().sum(0), rtol=0.12, atol=0
    )
    torch.testing.assert_close(got["last"], torch.ones(3, dtype=torch.float64))


def test_a_curved_network_against_finite_differences():
    torch.manual_seed(0)
    network = Curved().double()
    samples = torch.randn(2, 3, 2, 3, 3, dtype=torch.float64)
    denoiser, calibration = by_hand(network, samples, [20, 10])
    got = channel_sensitivity(denoiser, calibration, images_per_step=3)
    step = 1e-5
    expected = torch.zeros(3, dtype=torch.float64)
    for timestep, batch in zip((20, 10), samples, strict=True):
        for one in batch:
            y = (
                network.conv(one[None])
                + network.time(torch.full((1, 1), timestep / 10.0, dtype=torch.float64))[:, :, None, None]
            )

            def head(y):
                return network.mix(torch.tanh(y).square().mean(dim=(2, 3))).item()

            for channel in range(3):
                for i in range(3):
                    for j in range(3):
                        up, down = y.clone(), y.clone()
                        up[0, channel, i, j] += step
                        down[0, channel, i, j] -= step
                        expected[channel] += ((head(up) - head(down)) / (2 * step)) ** 2
    torch.testing.assert_close(got["conv"], expected / 6, rtol=1e-5, atol=1e-12)
    assert (got["time"] > 0).all()  # reached although no input leads to it


def test_a_whole_network_is_reached_everywhere_and_repeatable():
    denoiser, calibration = small_denoiser(), small_calibration()
    steps = []
    got = channel_sensitivity(
        denoiser, calibration, images_per_step=2, report=lambda done, total, _: steps.append((done, total))
    )
    assert list(got) == [layer.name for layer in denoiser.quantizable_layers]
    assert all(values.shape == (denoiser.layer(name).out_channels,) for name, values in got.items())
    # a key's bias cancels in the softmax, its other changes do not
    assert all((values > 0).all() for values in got.values())
    assert steps == [(done, 3) for done in range(4)]
    again = channel_sensitivity(denoiser, calibration, images_per_step=2)
    assert all(torch.equal(got[name], again[name]) for name in got)
    assert not any(m._forward_hooks for m in denoiser.network.modules())
    assert all(parameter.grad is None for parameter in denoiser.network.parameters())


def test_what_is_refused_and_cancelled():
    torch.manual_seed(0)
    denoiser, calibration = by_hand(Linear(1), torch.randn(1, 2, 5), [20])
    with pytest.raises(SettingsError, match="at least 1, got 0 and 8"):
        channel_sensitivity(denoiser, calibration, probes=0)

    def report(done, total, text):
        raise Cancelled("stop")

    with pytest.raises(Cancelled, match="stop"):
        channel_sensitivity(denoiser, calibration, report=report)
    with torch.no_grad():
        denoiser.network.last.weight[0, 0] = float("inf")
    with pytest.raises(DataError, match="gradient at layer first is not finite"):
        channel_sensitivity(denoiser, calibration)
