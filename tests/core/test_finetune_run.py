"""Whole runs: progress, kill and resume, Stop, adapters."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_finetuner import FAST, small_record
from tiny_quant import small_calibration, small_denoiser, uniform_plan

from mpqdm_core.adapter import Adapter, apply_adapter
from mpqdm_core.errors import Cancelled, DataError, LoadError
from mpqdm_core.finetune_run import finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample

QUANT = QuantSettings(activation_bits=4)


def run(settings=None, **arguments):
    denoiser = small_denoiser()
    return finetune(
        denoiser,
        small_calibration(),
        uniform_plan(denoiser, 3),
        arguments.pop("record", None) or small_record(),
        settings or FinetuneSettings(**FAST),
        arguments.pop("quant_settings", QUANT),
        **arguments,
    )


def assert_same_adapter(one, other):
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name


def test_progress_steps_and_the_doctor_are_heard_in_order():
    heard, looked, told = [], [], []
    result = run(
        on_step=lambda step: heard.append(step.step),
        on_examine=lambda diagnosis: looked.append(diagnosis.step),
        examine_every=4,
        report=lambda done, total, text: told.append((done, total)),
    )
    assert heard == [1, 2, 3, 4, 5, 6]
    assert looked == [0, 4]
    assert told == [(done, 6) for done in range(7)]
    assert result.finished and result.adapter.steps == 6


def test_previews_show_the_student_as_it_is_and_change_nothing():
    def draw(step, student):
        pictures[step] = sample(student, labels=[0, 1], seeds=[0, 1]).images

    pictures = {}
    watched = run(on_preview=draw, preview_every=3)
    assert list(pictures) == [0, 3]
    assert_same_adapter(watched.adapter, run().adapter)
    untrained = quantize(
        small_denoiser(), small_calibration(), uniform_plan(small_denoiser(), 3), QUANT
    ).denoiser
    assert np.array_equal(pictures[0], sample(untrained, labels=[0, 1], seeds=[0, 1]).images)
    assert not np.array_equal(pictures[0], pictures[3])


def test_a_preview_may_stop_the_run():
    def stop(step, student):
        if step == 2:
            raise Cancelled

    stopped = run(on_preview=stop, preview_every=2)
    assert not stopped.finished and stopped.adapter.steps == 2


def test_stop_leaves_a_usable_adapter_and_the_run_goes_on_where_it_was(tmp_path):
    checkpoint = tmp_path / "state.pt"

    def stop_at_four(done, total, text):
        if done == 4:
            raise Cancelled

    stopped = run(checkpoint=checkpoint, report=stop_at_four)
    assert not stopped.finished and stopped.adapter.steps == 4 and checkpoint.exists()
    student = apply_adapter(small_denoiser(), small_calibration(), stopped.adapter)
    assert sample(student.denoiser, labels=[0], seeds=[0]).images.shape[0] == 1
    resumed = run(checkpoint=checkpoint)
    assert resumed.finished and not checkpoint.exists()
    assert_same_adapter(resumed.adapter, run().adapter)


def test_a_killed_process_goes_on_from_its_last_checkpoint(tmp_path):
    code = (
        "import sys, mpqdm_core.finetune_run as runs\n"
        "runs.CHECKPOINT_EVERY_S = 0.0\n"
        "from test_finetune_run import run\n"
        "from pathlib import Path\n"
        "run(checkpoint=Path(sys.argv[1]) / 'state.pt', on_step=lambda s: print(s.step, flush=True))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    with process:
        for line in process.stdout:
            if line.strip() == "4":  # step 3 was saved before step 4 was announced
                process.send_signal(signal.SIGKILL)
                break
    assert (tmp_path / "state.pt").exists()
    steps = []
    resumed = run(checkpoint=tmp_path / "state.pt", on_step=lambda step: steps.append(step.step))
    assert steps[0] in (4, 5)  # the kill may come before or after the fourth was saved
    assert steps[-1] == 6
    assert_same_adapter(resumed.adapter, run().adapter)


def test_an_adapter_survives_its_file_and_gives_the_same_pictures(tmp_path):
    adapter = run().adapter
    adapter.save(tmp_path / "a.safetensors")
    loaded = Adapter.load(tmp_path / "a.safetensors")
    assert loaded.content_hash == adapter.content_hash
    assert_same_adapter(loaded, adapter)
    live = apply_adapter(small_denoiser(), small_calibration(), adapter, freeze=False)
    frozen = apply_adapter(small_denoiser(), small_calibration(), loaded)
    assert live.content_hash == frozen.content_hash
    pictures = [sample(s.denoiser, labels=[1], seeds=[3]).latents for s in (live, frozen)]
    assert (pictures[0] == pictures[1]).all()


def test_zero_points_of_an_adapter_are_codes_of_their_grid():
    settings = FinetuneSettings(**{**FAST, "activation_rate": 0.3, "weight_zero_point_rate": 0.3})
    adapter = run(settings, quant_settings=QuantSettings(activation_bits=4, grid="affine")).adapter
    points = {name: t for name, t in adapter.tensors.items() if name.endswith("zero_point")}
    assert points
    for name, tensor in points.items():
        top = 7 if "weight" in name else 15
        assert torch.equal(tensor, tensor.round()) and 0 <= tensor.min() <= tensor.max() <= top, name


def test_losses_before_after_and_merged_are_kept():
    losses = run(FinetuneSettings(**{**FAST, "steps": 30})).adapter.losses
    assert set(losses) == {"task before", "task after", "task merged"}
    assert losses["task after"] < losses["task before"]


def test_a_loss_that_is_not_finite_stops_with_advice_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr("mpqdm_core.finetune_run.CHECKPOINT_EVERY_S", 0.0)
    checkpoint, steps = tmp_path / "state.pt", []
    tensors = small_record().tensors()
    broken = tensors["prediction"].clone()
    broken[-1] = float("nan")  # the last timestep: the second window of every pass
    record = small_record().with_tensors({**tensors, "prediction": broken})
    with pytest.raises(DataError, match="the loss is nan at step 2: lower the learning rates"):
        run(record=record, checkpoint=checkpoint, on_step=lambda step: steps.append(step.step))
    assert steps == [1]
    state = torch.load(checkpoint, weights_only=True)
    assert state["done"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in state["tensors"].values())


def test_a_checkpoint_of_another_run_and_a_damaged_one_get_a_sentence(tmp_path):
    checkpoint = tmp_path / "state.pt"

    def stop(done, total, text):
        if done == 1:
            raise Cancelled

    run(checkpoint=checkpoint, report=stop)
    with pytest.raises(DataError, match="is of another run"):
        run(FinetuneSettings(**{**FAST, "seed": 9}), checkpoint=checkpoint)
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(LoadError, match="delete it to start again"):
        run(checkpoint=checkpoint)


def test_a_wrong_adapter_gets_a_sentence(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(LoadError, match="damaged or is not an adapter"):
        Adapter.load(tmp_path / "x.safetensors")
    with pytest.raises(LoadError, match="no adapter at"):
        Adapter.load(tmp_path / "missing.safetensors")
    adapter = run().adapter
    name = next(iter(adapter.tensors))
    broken = {**adapter.tensors, name: adapter.tensors[name] * float("nan")}
    replace(adapter, tensors=broken).save(tmp_path / "nan.safetensors")
    with pytest.raises(
        LoadError, match=rf"nan\.safetensors holds NaN or infinite values, first in {re.escape(name)}$"
    ):
        Adapter.load(tmp_path / "nan.safetensors")


def test_memory_and_threads_are_back_soon_after_a_stop():
    import threading

    def stop(done, total, text):
        if done == 2:
            raise Cancelled

    before = threading.active_count()
    run(report=stop)
    deadline = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
