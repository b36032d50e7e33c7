"""What learning rates count in, where pre-scaling stretches weights and shrinks inputs."""

import pytest
import torch
from tiny_training import FAST, student, tuner

from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.trainable import make_trainable, parameter_groups, trained_layers


def rates_of(network, **settings):
    """Learning rates of the first pre-scaled layer's corrections and weight scales, and the layer."""
    name, layer = next(
        (name, layer)
        for name, layer in trained_layers(network).items()
        if layer.activation.prescale is not None
    )
    settings = FinetuneSettings(**{**FAST, "low_rank_rate": 1.0, "weight_scale_rate": 1.0, **settings})
    make_trainable({name: layer}, settings)
    groups = parameter_groups({name: layer}, None, settings)
    by_parameter = {id(parameter): group["rate"] for group in groups for parameter in group["params"]}
    return by_parameter[id(layer.low_rank.a)], by_parameter[id(layer.weight_scale)], layer


def test_rates_count_in_steps_of_the_prescaled_weight_or_of_the_weight_itself():
    corrections, scales_rate, layer = rates_of(student(prescale_alpha=0.5))
    scales, factors = layer.weight_scale.tolist(), layer.activation.prescale.tolist()
    assert corrections == pytest.approx(sum(scales) / len(scales), rel=1e-5) and scales_rate == 1.0
    corrections, scales_rate, _ = rates_of(student(prescale_alpha=0.5), prescaled_rates=False)
    steps = [scale * factor for scale in scales for factor in factors]  # of every weight, before pre-scaling
    assert corrections == pytest.approx(sum(steps) / len(steps), rel=1e-5)
    assert scales_rate == pytest.approx(len(factors) / sum(factors), rel=1e-5)


def test_input_ranges_move_in_steps_of_the_input_before_prescaling():
    moved = {}
    for prescaled in (True, False):
        run = tuner(student(prescale_alpha=0.5), activation_rate=1e-4, prescaled_rates=prescaled)
        before = run.slots.values()
        run.step()
        moved[prescaled] = (run.slots.values() - before).abs().amax(dim=0)
        factors = [layer.activation.prescale for layer in run.layers.values()]
        run.close()
    means = torch.tensor([1.0 if factor is None else float(factor.mean()) for factor in factors])
    torch.testing.assert_close(moved[False][::2], moved[True][::2] * means, rtol=1e-2, atol=1e-8)
    torch.testing.assert_close(moved[False][1::2], moved[True][1::2])  # levels are levels
