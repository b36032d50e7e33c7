"""What rounding one layer alone does, against sums by hand on networks one can follow."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_quant import by_hand, small_calibration, small_denoiser
from torch import nn

from mpqdm_core.effects import affordable_effects, layer_effects
from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.quant_settings import QuantSettings

PLAIN = QuantSettings(activation_bits=None, prescale_alpha=None, grid="mid-rise")


class TwoLinear(nn.Module):
    """eps = last(first(x))."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, sample, timestep):
        return self.last(self.first(sample))


def with_scheduler(network, samples, timesteps):
    denoiser, calibration = by_hand(network, samples, timesteps)
    return replace(denoiser, pipeline=SimpleNamespace(scheduler=DDIMScheduler())), calibration


def test_one_bit_of_the_last_layer_by_hand():
    torch.manual_seed(0)
    network, samples = TwoLinear(), torch.randn(1, 6, 5)
    effects = layer_effects(*with_scheduler(network, samples, [20]), PLAIN, images_per_step=6)
    rounded = []
    for row in network.last.weight:  # one bit is a sign: half of the range, or of 0.99, 0.98, ... of it
        tried = [row.sign() * row.abs().max() / 2 * (1 - k / 100) for k in range(80)]
        rounded.append(min(tried, key=lambda levels: (row - levels).abs().pow(2.4).sum().item()))
    change = network.first(samples[0]) @ (torch.stack(rounded) - network.last.weight).T
    torch.testing.assert_close(effects["last"][0], change.double().square().sum(1).mean(), rtol=1e-5, atol=0)


def test_a_layer_counts_as_far_as_what_follows_carries_it():
    torch.manual_seed(0)
    network = TwoLinear()
    samples = torch.randn(1, 6, 5)
    first = layer_effects(*with_scheduler(network, samples, [20]), PLAIN)["first"]
    with torch.no_grad():
        network.last.weight.mul_(3.0)
    again = layer_effects(*with_scheduler(network, samples, [20]), PLAIN)["first"]
    torch.testing.assert_close(again, 9 * first, rtol=1e-4, atol=0)


def test_timesteps_count_as_far_as_their_steps_move_the_latent():
    torch.manual_seed(0)
    network, samples = TwoLinear(), torch.randn(2, 6, 5)
    both = layer_effects(*with_scheduler(network, samples, [700, 300]), PLAIN, images_per_step=6)["last"]
    early = layer_effects(*with_scheduler(network, samples[:1], [700]), PLAIN, images_per_step=6)["last"]
    late = layer_effects(*with_scheduler(network, samples[1:], [300]), PLAIN, images_per_step=6)["last"]
    alphas = DDIMScheduler().alphas_cumprod.double()[[700, 300]]
    a, after = alphas, torch.cat([alphas[1:], torch.ones(1, dtype=torch.float64)])
    moved = ((1 - after).sqrt() - (after * (1 - a) / a).sqrt()) ** 2  # of a DDIM step, by its formula
    torch.testing.assert_close(both, (moved[0] * early + moved[1] * late) / moved.sum(), rtol=1e-6, atol=0)


def test_the_network_is_not_touched_and_more_bits_change_less():
    denoiser, calibration = small_denoiser(), small_calibration()
    before = {name: tensor.clone() for name, tensor in denoiser.network.state_dict().items()}
    effects = layer_effects(denoiser, calibration)
    assert list(effects) == [layer.name for layer in denoiser.quantizable_layers]
    assert all(effect.shape == (4,) and (effect > 0).all() for effect in effects.values())
    assert all(effect[3] < effect[0] for effect in effects.values())
    for name, tensor in denoiser.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    again = layer_effects(denoiser, calibration)
    assert all(torch.equal(again[name], effect) for name, effect in effects.items())


def test_what_would_take_hours_is_left_out():
    denoiser, calibration = small_denoiser(), small_calibration()
    assert affordable_effects(denoiser, calibration) is not None
    huge = replace(denoiser, layers=tuple(replace(layer, macs=10**12) for layer in denoiser.layers))
    assert affordable_effects(huge, calibration) is None


def test_bad_settings_and_strangers_are_one_sentence():
    denoiser, calibration = small_denoiser(), small_calibration()
    with pytest.raises(SettingsError, match="timesteps and images_per_step must be at least 1, got 0 and 4"):
        layer_effects(denoiser, calibration, timesteps=0)
    with pytest.raises(DataError, match="calibrate again"):
        layer_effects(replace(denoiser, content_hash="other"), calibration)


def test_it_can_be_stopped():
    def stop(done, total, message):
        if done == 2:
            raise Cancelled(message)

    with pytest.raises(Cancelled, match="alone"):
        layer_effects(small_denoiser(), small_calibration(), report=stop)
