from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from tiny_quant import by_hand, small_calibration, small_denoiser
from torch import nn

from mpqdm_core.errors import Cancelled, SettingsError
from mpqdm_core.outliers import InputOutliers, outlier_stats


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, sample, timestep):
        return self.layer(sample)


@pytest.fixture(scope="module")
def outlying():
    torch.manual_seed(0)
    samples = torch.randn(2, 50, 3) * torch.tensor([1.0, 20.0, 0.0])  # one loud and one dead input channel
    return by_hand(OneLayer(), samples, [20, 10])


def test_weights_before_and_after_prescaling(outlying):
    denoiser, calibration = outlying
    layer = outlier_stats(denoiser, calibration, 0.5).layer("layer")
    weight = denoiser.network.layer.weight.double().numpy()
    np.testing.assert_allclose(
        layer.weight.kurtosis, scipy_stats.kurtosis(weight, axis=1, fisher=False), rtol=1e-6
    )
    absmax = np.abs(calibration.inputs.sample.numpy()).max(axis=(0, 1))
    factors = np.sqrt(np.abs(weight).max(axis=0) / np.where(absmax > 0, absmax, 1))
    factors[2] = 1.0  # dead input: left alone
    np.testing.assert_allclose(layer.prescale, factors, rtol=1e-5)
    expected = scipy_stats.kurtosis(weight / factors, axis=1, fisher=False)
    np.testing.assert_allclose(layer.prescaled.kurtosis, expected, rtol=1e-4)


def test_inputs_by_timestep(outlying):
    denoiser, calibration = outlying
    inputs = outlier_stats(denoiser, calibration).layer("layer").inputs
    sample = calibration.inputs.sample.numpy()
    np.testing.assert_allclose(inputs.absmax, np.abs(sample).max(axis=1))
    np.testing.assert_allclose(inputs.rms, np.sqrt(np.square(sample).mean(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(inputs.low, sample.min(axis=(1, 2)))
    np.testing.assert_allclose(inputs.high, sample.max(axis=(1, 2)))
    expected = np.abs(sample).max(axis=(1, 2)) / np.median(np.abs(sample).max(axis=1), axis=1)
    np.testing.assert_allclose(inputs.channel_spread, expected, rtol=1e-6)
    dead = np.zeros((2, 3), dtype=np.float32)
    nothing = InputOutliers(absmax=dead, rms=dead, low=dead[:, 0], high=dead[:, 0])
    assert nothing.channel_spread.tolist() == [0.0, 0.0]


def test_without_calibration_there_are_weights_only():
    denoiser = small_denoiser()
    found = outlier_stats(denoiser)
    assert [layer.name for layer in found.layers] == [layer.name for layer in denoiser.layers]
    assert all(layer.inputs is layer.prescale is layer.prescaled is None for layer in found.layers)
    assert found.timesteps == ()


def test_exempt_layers_are_seen_but_not_prescaled():
    calibration = small_calibration()
    found = outlier_stats(small_denoiser(), calibration, 0.5, names=["conv_in", "mid_block.resnets.0.conv1"])
    assert found.timesteps == calibration.timesteps
    assert found.layer("conv_in").prescaled is None
    assert found.layer("conv_in").inputs.absmax.shape == (3, 4)
    assert found.layer("mid_block.resnets.0.conv1").prescaled.kurtosis.shape == (16,)


def test_what_is_refused_and_cancelled(outlying):
    denoiser, calibration = outlying
    with pytest.raises(SettingsError, match="give a calibration too"):
        outlier_stats(denoiser, alpha=0.5)
    with pytest.raises(SettingsError, match="no layer 'x'"):
        outlier_stats(denoiser, names=["x"])
    with pytest.raises(SettingsError, match="no statistics for layer 'x'; there are 1"):
        outlier_stats(denoiser).layer("x")
    with pytest.raises(SettingsError, match=r"alpha must be in \[0, 1\], got 2"):
        outlier_stats(denoiser, calibration, 2.0)

    def report(done, total, text):
        raise Cancelled("stop")

    with pytest.raises(Cancelled, match="stop"):
        outlier_stats(denoiser, report=report)
