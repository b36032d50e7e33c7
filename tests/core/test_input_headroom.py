"""The first layer's inputs reach beyond what calibration saw."""

import numpy as np
import pytest
import torch
from tiny_models import tiny_denoiser

from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.quantization import quantize


@pytest.fixture(scope="module")
def quantized():
    denoiser = tiny_denoiser("class-conditional-ldm")
    calibration = calibrate(denoiser, CalibrationSettings(samples=2, batch_size=2))
    layers = denoiser.quantizable_layers
    plan = BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        8,
    )
    return calibration, quantize(denoiser, calibration, plan)


@pytest.mark.parametrize("name, reach", [("conv_in", 1.25), ("conv_out", 1.0)])
def test_the_range_reaches_the_calibrated_one_times_the_headroom(quantized, name, reach):
    calibration, model = quantized
    activation = model.layers[name].activation
    stats = calibration.layers[name]
    span = activation.scale.flatten().numpy() * 255
    seen = (stats.high - torch.clamp(stats.low, max=0.0)).numpy()
    # The range search may shrink the calibrated range, and a range always holds zero; it never widens it.
    assert np.all(span <= reach * seen * 1.001)
    assert np.all(span >= reach * seen * 0.6)
