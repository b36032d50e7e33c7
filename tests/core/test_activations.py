from __future__ import annotations

import copy
import logging
import pickle
import threading

import pytest
import torch
from torch import nn

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.timestep_clock import TimestepClock
from mpqdm_core.timesteps import timestep_value


def make(bits=2, scale=(0.5, 1.0), zero_point=(1.0, 2.0), prescale=None, axis=-1, timesteps=(900, 100)):
    clock = TimestepClock(timesteps)
    clock.set(timesteps[0])
    return ActivationQuantizer(
        channel_axis=axis,
        prescale=prescale,
        bits=bits,
        scale=torch.tensor(scale),
        zero_point=torch.tensor(zero_point),
        clock=clock,
    )


def test_levels_by_hand():
    quantizer = make()  # 2 bits, step 0.5, code 1 is zero: levels -0.5, 0, 0.5, 1.0
    with torch.no_grad():
        got = quantizer(torch.tensor([[-9.0, -0.6, -0.2, 0.2, 0.3, 0.8, 9.0]]))
    assert got.tolist() == [[-0.5, -0.5, 0.0, 0.0, 0.5, 1.0, 1.0]]


def test_the_range_follows_the_timestep_and_not_the_calls():
    quantizer = make()
    x = torch.tensor([[9.0]])
    with torch.no_grad():
        assert quantizer(x).item() == 1.0  # (3 - 1) * 0.5
        assert quantizer(x).item() == 1.0
        quantizer.clock.set(torch.tensor([100, 100]))
        assert quantizer(x).item() == 1.0  # (3 - 2) * 1.0
        assert quantizer(-x).item() == -2.0


def test_another_schedule_takes_the_nearest_range_and_says_so_once(caplog):
    clock = TimestepClock((900, 500, 100))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.set(320)
        assert clock.slot == 1
    assert [record.getMessage() for record in caplog.records] == [
        "no activation range for timestep 320: using that of 500"
    ]
    clock.set(100)
    assert clock.slot == 2


def test_threads_do_not_share_the_running_timestep():
    clock = TimestepClock((2, 1))
    clock.set(2)
    seen = []
    thread = threading.Thread(target=lambda: (clock.set(1), seen.append(clock.slot)))
    thread.start()
    thread.join()
    assert (seen, clock.slot) == ([1], 0)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.quantizer = make()
        self.quantizer.clock.attach(self)

    def forward(self, sample, timestep):
        return self.quantizer(sample)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_follows_its_own_calls(copier):
    network = Network()
    twin = copier(network)
    with torch.no_grad():
        network(torch.zeros(1, 1), 900)
        assert twin(torch.tensor([[-9.0]]), timestep=100).item() == -2.0
    assert network.quantizer.clock.slot == 0
    assert twin.quantizer.clock.slot == 1


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3, 4, 4)), (-1, (2, 5, 3)), (-1, (7, 3))])
def test_the_three_ways_to_compute_agree_bit_for_bit(axis, shape):
    torch.manual_seed(0)
    prescale = torch.tensor([0.3, 1.0, 2.7])
    quantizer = make(bits=4, scale=(0.17, 0.31), zero_point=(5.0, 9.0), prescale=prescale, axis=axis)
    x = torch.randn(shape) * 2
    for timestep in (900, 100):
        quantizer.clock.set(timestep)
        with torch.no_grad():
            live = quantizer(x)
            frozen_one = copy.deepcopy(quantizer)
            frozen_one.freeze_()
            frozen_one.clock.set(timestep)
            frozen = frozen_one(x)
        assert torch.equal(live, frozen)
        assert torch.equal(live, quantizer(x).detach())  # the path with gradients


def test_prescaled_levels_match_the_plain_formula():
    torch.manual_seed(1)
    prescale = torch.tensor([0.5, 1.0, 4.0])  # powers of two and a step of 1/4: both orders round alike
    quantizer = make(bits=3, scale=(0.25, 1.0), zero_point=(3.0, 0.0), prescale=prescale, axis=1)
    x = torch.randn(2, 3, 4, 4)
    scaled = x * prescale[:, None, None]
    expected = (torch.clamp(torch.round(scaled / 0.25) + 3, 0, 7) - 3) * 0.25
    with torch.no_grad():
        assert torch.equal(quantizer(x), expected)


def test_gradients_reach_input_scale_and_zero_point():
    quantizer = make()  # levels -0.5, 0, 0.5, 1.0
    quantizer.requires_grad_(True)
    x = torch.tensor([[0.3, 9.0, -9.0]], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 0.0]]
    # inside: round(x/s) - x/s = 1 - 0.6; above: 3 - z = 2; below: 0 - z = -1; the other timestep gets nothing
    torch.testing.assert_close(quantizer.scale.grad, torch.tensor([0.4 + 2.0 - 1.0, 0.0]))
    assert quantizer.zero_point.grad.tolist() == [-0.5 - 0.5, 0.0]


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3, 4, 4)), (-1, (2, 3)), (-1, (2, 5, 3))])
def test_samples_at_several_timesteps_are_those_of_a_call_at_each(axis, shape):
    torch.manual_seed(0)
    quantizer = make(prescale=torch.tensor([1.0, 0.5, 2.0]), axis=axis).requires_grad_(True)
    x, pull = (3 * torch.randn(shape) for _ in range(2))

    def seen(timestep, part):
        quantizer.zero_grad()
        quantizer.clock.set(timestep)
        given = x[part].clone().requires_grad_(True)
        result = quantizer(given)
        (result * pull[part]).sum().backward()
        with torch.no_grad():
            assert torch.equal(quantizer(x[part]), result)
        inside = quantizer.inside(x[part])
        return result, given.grad, inside, quantizer.scale.grad, quantizer.zero_point.grad

    first, second = seen(900, slice(0, 1)), seen(100, slice(1, 2))
    together = seen(torch.tensor([900, 100]), slice(None))
    for place in range(3):
        assert torch.equal(together[place], torch.cat([first[place], second[place]]))
    for place in (3, 4):
        torch.testing.assert_close(together[place], first[place] + second[place])


def test_a_sample_may_have_several_rows_that_follow_each_other():
    quantizer = make()
    quantizer.clock.set(torch.tensor([900, 100]))
    with torch.no_grad():
        assert quantizer(torch.full((4, 1), -9.0)).flatten().tolist() == [-0.5, -0.5, -2.0, -2.0]
        with pytest.raises(ShapeError, match="3 rows does not belong to 2 samples evenly"):
            quantizer(torch.zeros(3, 1))


def test_what_can_do_one_timestep_alone_says_so():
    quantizer = make()
    quantizer.clock.set(torch.tensor([900, 100]))
    with pytest.raises(DataError, match="takes one timestep per call"):
        quantizer.steps(torch.zeros(2, 1))
    quantizer.clock.set(torch.tensor([100, 100]))  # of one value is one timestep
    assert quantizer.clock.rows is None and quantizer.clock.slot == 1


def test_full_precision_activations_are_only_prescaled():
    x = torch.randn(2, 3)
    factors = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(ActivationQuantizer(channel_axis=-1)(x), x)
    assert torch.equal(ActivationQuantizer(channel_axis=-1, prescale=factors)(x), x * factors)


def test_zero_stays_zero_so_that_padding_is_exact():
    quantizer = make(bits=3, scale=(0.3, 0.7), zero_point=(2.0, 7.0))
    with torch.no_grad():
        assert quantizer(torch.zeros(1, 4)).tolist() == [[0.0] * 4]


def test_what_is_refused():
    with pytest.raises(DataError, match="one timestep per call"):
        timestep_value(torch.tensor([5, 6]))
    with pytest.raises(SettingsError, match=r"distinct.*\[5, 5\]"):
        TimestepClock((5, 5))
    with pytest.raises(SettingsError, match="no timestep is set"):
        _ = TimestepClock((5,)).slot
    with pytest.raises(SettingsError, match=r"1\.\.16.*got 17"):
        make(bits=17)
    with pytest.raises(ShapeError, match=r"each of 2 timesteps.*\(3,\)"):
        make(scale=(1.0, 1.0, 1.0))
    with pytest.raises(SettingsError, match="channel_axis must be 1 or -1, got 2"):
        make(axis=2)
    with pytest.raises(SettingsError, match="without a timestep"):
        TimestepClock((5,)).on_forward(nn.Identity(), (1,), {})
