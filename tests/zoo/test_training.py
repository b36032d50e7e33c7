import json
import math

import numpy as np
import pytest
import torch

from mpqdm_core.errors import LoadError
from mpqdm_core.gradient_workers import GradientWorkers
from mpqdm_core.zoo.training import Average, RunFolder, Schedule, to_images, to_tensor


def test_the_schedule_warms_up_peaks_and_falls_to_its_floor():
    schedule = Schedule(steps=1100, peak=2.0, warmup=100, floor=0.1)
    assert schedule.learning_rate(0) == pytest.approx(0.02)
    assert schedule.learning_rate(99) == 2.0
    assert schedule.learning_rate(600) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way down the cosine
    assert schedule.learning_rate(1100) == pytest.approx(0.2)


def test_workers_average_the_gradients_of_their_shares():
    weight = torch.nn.Parameter(torch.tensor([2.0, -1.0]))
    unused = torch.nn.Parameter(torch.tensor([3.0]))
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    losses = GradientWorkers(2).backward(
        [weight, unused], [lambda: (weight * x[0]).sum() ** 2, lambda: (weight * x[1]).sum() ** 2]
    )
    assert losses == [4.0, 4.0]
    assert torch.equal(weight.grad, torch.tensor([2.0, -4.0]))  # halves of 2*2*1 and 2*(-2)*2
    assert unused.grad is None


def test_a_killed_run_goes_on_from_its_last_state(tmp_path):
    model = torch.nn.Linear(2, 1)
    run = RunFolder(tmp_path)
    assert run.restore({"model": model}) == 0
    assert run.save(5, {"model": model}) is False  # less than a minute has passed
    assert run.save(5, {"model": model}, force=True) is True
    fresh = torch.nn.Linear(2, 1)
    assert RunFolder(tmp_path).restore({"model": fresh}) == 5
    assert torch.equal(fresh.weight, model.weight)


def test_a_damaged_state_says_what_to_do(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(LoadError, match="delete it to start this run again"):
        RunFolder(tmp_path).restore({})


def test_the_log_is_one_json_line_a_call(tmp_path):
    run = RunFolder(tmp_path)
    run.log(step=1, loss=0.1234567)
    run.log(step=2, loss=0.1)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["loss"] == 0.123457


def test_the_average_follows_the_model_with_its_decay():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = Average(model, decay=0.5)
    model.weight.data.fill_(1.0)
    average.update(model, step=10)  # the warm-up bound 11/20 is above 0.5 here
    assert average.shadow["weight"].item() == pytest.approx(0.5)
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(0.5)


def test_pixels_survive_the_way_to_tensors_and_back():
    images = np.arange(256, dtype=np.uint8).repeat(12).reshape(4, 16, 16, 3)
    tensor = to_tensor(images)
    assert tensor.min() == -1.0
    assert math.isclose(tensor.max().item(), 1.0)
    assert np.array_equal(to_images(tensor), images)
