import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mpqdm_core.zoo import training
from mpqdm_core.zoo.denoiser_training import Trainee, TrainingSettings, noise_loss, train, with_nulls
from mpqdm_core.zoo.training import RunFolder

HALF = torch.full((10,), 0.5)  # a schedule with as much signal as noise: SNR 1 everywhere
SETTINGS = TrainingSettings(steps=6, batch_size=4, warmup=2, learning_rate=0.1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_whoever_sees_the_noise_has_no_loss():
    clean = torch.randn(8, 2, 3, 3, generator=generator(1))
    loss = noise_loss(lambda noisy, _: (noisy - 0.5**0.5 * clean) / 0.5**0.5, clean, HALF, 5.0, generator())
    assert loss.item() == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize(("limit", "weight"), [(5.0, 1.0), (0.25, 0.25)])
def test_easy_timesteps_count_by_the_limit_over_their_ratio(limit, weight):
    clean = torch.zeros(4000, 1, 2, 2)
    loss = noise_loss(lambda noisy, _: torch.zeros_like(noisy), clean, HALF, limit, generator())
    assert loss.item() == pytest.approx(weight, rel=0.05)  # unit noise, nothing of it predicted


def test_timesteps_cover_the_schedule_evenly():
    seen = []
    noise_loss(lambda noisy, t: seen.append(t) or noisy, torch.zeros(20, 1, 1, 1), HALF, 5.0, generator())
    assert torch.bincount(seen[0], minlength=10).tolist() == [2] * 10


def test_a_share_of_the_labels_becomes_none():
    labels = torch.arange(2000) % 10
    assert torch.equal(with_nulls(labels, 99, 0.0, generator()), labels)
    assert (with_nulls(labels, 99, 1.0, generator()) == 99).all()
    some = with_nulls(labels, 99, 0.1, generator())
    assert 0.08 < (some == 99).float().mean() < 0.12
    assert torch.equal(some[some != 99], labels[some != 99])


def line(stop_at=None):
    """Learns 3 x; may break at a certain share as if killed."""
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1)
    calls = []

    def loss(count, generator):
        calls.append(count)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(count, 1, generator=generator)
        return (network(x) - 3 * x).square().mean()

    return Trainee(network=network, loss=loss, draw=lambda _: np.zeros((10, 2, 2, 3), np.uint8))


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)  # saves after every step
    straight = train(SETTINGS, RunFolder(tmp_path / "a"), line(), minutes=1, workers=1)
    with pytest.raises(KeyboardInterrupt):
        train(SETTINGS, RunFolder(tmp_path / "b"), line(stop_at=6), minutes=1, workers=1)
    resumed = train(SETTINGS, RunFolder(tmp_path / "b"), line(), minutes=1, workers=2)
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)


def test_no_minutes_give_the_state_that_is_there(tmp_path):
    trained = train(SETTINGS, RunFolder(tmp_path), line(), minutes=1, workers=1)
    again = train(SETTINGS, RunFolder(tmp_path), line(stop_at=1), minutes=0, workers=1)
    assert torch.equal(trained.weight, again.weight)
    assert not again.weight.requires_grad


def test_the_run_folder_says_what_was_asked_and_keeps_a_log_and_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr("mpqdm_core.zoo.denoiser_training.LOG_EVERY", 20)
    monkeypatch.setattr("mpqdm_core.zoo.denoiser_training.SHEET_EVERY", 40)
    train(replace(SETTINGS, steps=40), RunFolder(tmp_path), line(), minutes=1, workers=1)
    assert json.loads((tmp_path / "settings.json").read_text())["learning_rate"] == 0.1
    logged = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [20, 40]
    assert logged[1]["loss"] < logged[0]["loss"]
    assert (tmp_path / "samples-000040.png").is_file()
    assert "CPU cores" in (tmp_path / "device.txt").read_text()
