from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_quant import SMALL, small_calibration, small_denoiser
from torch import nn

from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.denoiser import hash_network
from mpqdm_core.errors import Cancelled, DataError, LoadError, SettingsError
from mpqdm_core.input_stats import StatsCollector
from mpqdm_core.recording import InputRecorder, RecordedInputs, output_tensor, replica, spread


def hooks_on(network):
    return [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_both_halves_of_guidance_are_recorded_at_every_timestep():
    calibration = small_calibration()
    inputs = calibration.inputs
    assert len(calibration.timesteps) == 3
    assert list(calibration.timesteps) == sorted(calibration.timesteps, reverse=True)
    assert inputs.sample.shape == (3, 6, 4, 8, 8)  # 3 pictures, twice
    # batches of 2 and 1: unconditional half (class 3 is none), then the classes in turn
    assert inputs.conditioning["class_labels"][0].tolist() == [3, 3, 0, 1, 3, 2]
    assert torch.equal(inputs.sample[:, 0], inputs.sample[:, 2])  # both halves see the same latent


def test_statistics_are_those_of_the_recorded_inputs():
    denoiser, calibration = small_denoiser(), small_calibration()
    stats = calibration.layers["conv_in"]  # its input is the network's own
    sample = calibration.inputs.sample
    torch.testing.assert_close(stats.channel_max, sample.amax(dim=(1, 3, 4)))
    torch.testing.assert_close(stats.channel_min, sample.amin(dim=(1, 3, 4)))
    torch.testing.assert_close(stats.mean_square, sample.square().mean(dim=(1, 3, 4)))
    torch.testing.assert_close(stats.absmax, sample.abs().amax(dim=(1, 3, 4)))
    torch.testing.assert_close(stats.high, sample.amax(dim=(1, 2, 3, 4)))
    torch.testing.assert_close(stats.low, sample.amin(dim=(1, 2, 3, 4)))
    assert stats.rows.shape == (3, 8, 4)
    known = {tuple(row.tolist()) for row in sample[1].movedim(1, -1).reshape(-1, 4)}
    assert all(tuple(row.tolist()) in known for row in stats.rows[1])
    assert list(calibration.layers) == [layer.name for layer in denoiser.layers]


def test_a_repeat_is_identical_and_the_seed_matters():
    again = calibrate(small_denoiser(), SMALL)
    assert again.content_hash == small_calibration().content_hash
    other = calibrate(small_denoiser(), replace(SMALL, seed=1))
    assert other.content_hash != again.content_hash


def test_replaying_recorded_inputs_repeats_the_call():
    denoiser, inputs = small_denoiser(), small_calibration().inputs
    arguments = inputs.arguments(1, torch.tensor([0, 2]))
    assert arguments["timestep"].item() == inputs.timesteps[1]
    with torch.no_grad():
        prediction = output_tensor(denoiser.network(**arguments))
    assert prediction.shape == (2, 4, 8, 8)
    assert torch.equal(arguments["sample"], inputs.sample[1, [0, 2]])


def test_saved_and_loaded_it_is_the_same(tmp_path):
    calibration = small_calibration()
    path = tmp_path / "small.safetensors"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded.content_hash == calibration.content_hash
    assert loaded.settings == calibration.settings
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]


def test_what_every_step_has_in_common_is_written_once(tmp_path):
    calibration = small_calibration()
    other = calibration.inputs.conditioning["class_labels"].clone()
    other[1, 0] = 0
    path = tmp_path / "small.safetensors"
    for labels, steps in ((calibration.inputs.conditioning["class_labels"], 1), (other, 3)):
        inputs = replace(calibration.inputs, conditioning={"class_labels": labels})
        replace(calibration, inputs=inputs).save(path)
        assert load_file(path)["conditioning/class_labels"].shape == (steps, 6)
        assert torch.equal(Calibration.load(path).inputs.conditioning["class_labels"], labels)


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(LoadError, match="no calibration at"):
        Calibration.load(tmp_path / "nowhere.safetensors")
    path = tmp_path / "half.safetensors"
    small_calibration().save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LoadError, match=r"half\.safetensors is damaged or is not a calibration"):
        Calibration.load(path)


@pytest.mark.parametrize(
    "stop", [Cancelled("stop"), MemoryError(), RuntimeError("can't allocate memory: 5 GB")]
)
def test_an_interruption_leaves_no_hooks_and_the_same_model(stop):
    denoiser = small_denoiser()
    weights = hash_network(denoiser.network, denoiser.pipeline.scheduler)

    def report(done, total, text):
        if done == 2:
            raise stop

    expected = Cancelled if isinstance(stop, Cancelled) else SettingsError
    with pytest.raises(
        expected, match=r"stop|not enough memory: lower the calibration's batch_size, which is 2"
    ):
        calibrate(denoiser, SMALL, report)
    assert hooks_on(denoiser.network) == []
    assert hash_network(denoiser.network, denoiser.pipeline.scheduler) == weights
    assert calibrate(denoiser, SMALL).content_hash == small_calibration().content_hash


def test_other_errors_stay_what_they_are():
    def report(done, total, text):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        calibrate(small_denoiser(), SMALL, report)


def test_nan_is_blamed_on_its_layer_and_timestep():
    collector = StatsCollector(rows_per_call=2, rows_per_step=2, seed=0, timestep=lambda: 41)
    watch = collector.watch("mid.conv")
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"layer mid\.conv at timestep 41 holds NaN or infinite"):
            watch(nn.Linear(2, 2), (torch.tensor([[1.0, bad]]),))


def test_a_layer_that_does_not_always_run_is_named():
    collector = StatsCollector(rows_per_call=2, rows_per_step=2, seed=0, timestep=lambda: 41)
    collector.watch("lazy")(nn.Linear(2, 2), (torch.ones(3, 2),))
    with pytest.raises(DataError, match="layer lazy never ran at timestep 40"):
        collector.finish((41, 40))


def test_memory_is_bounded_by_the_rows():
    collector = StatsCollector(rows_per_call=4, rows_per_step=6, seed=0, timestep=lambda: 1)
    watch = collector.watch("layer")
    for _ in range(5):
        watch(nn.Linear(2, 2), (torch.randn(100, 2),))
    assert collector.finish((1,))["layer"].rows.shape == (1, 6, 2)


def test_a_replica_shares_weights_and_no_hooks():
    network = small_denoiser().network
    copy = replica(network)
    copy.conv_in.register_forward_pre_hook(lambda *_: None)
    assert hooks_on(network) == []
    assert copy.conv_in.weight is network.conv_in.weight


def test_the_recorder_wants_what_a_denoiser_takes():
    recorder = InputRecorder()
    with pytest.raises(DataError, match="`input` and `timestep`"):
        recorder.on_forward(nn.Identity(), (torch.zeros(1),), {})
    with pytest.raises(DataError, match="never called its network"):
        recorder.finish()
    with pytest.raises(DataError, match="timestep is unknown"):
        recorder.timestep()
    with pytest.raises(DataError, match="return a tensor, got str"):
        output_tensor(("words",))


def test_spread_draws_distinct_indices():
    generator = torch.Generator().manual_seed(0)
    drawn = spread(10, 4, generator)
    assert len(set(drawn.tolist())) == 4
    assert drawn.tolist() == sorted(drawn.tolist())
    assert spread(3, 9, generator).tolist() == [0, 1, 2]
    assert RecordedInputs(timesteps=(1,), sample=torch.zeros(1, 5, 2)).samples_per_step == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 0}, "samples must be a whole number from 1 up, got 0"),
        ({"batch_size": 1.5}, r"batch_size .* got 1\.5"),
        ({"rows_per_step": -1}, "rows_per_step .* got -1"),
        ({"seed": -1}, "seed must be .* got -1"),
    ],
)
def test_settings_are_checked(changes, words):
    with pytest.raises(SettingsError, match=words):
        CalibrationSettings(**changes)
