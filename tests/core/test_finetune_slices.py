"""A run in slices does what one in one piece does; every slice gets and gives only what can be pickled."""

import pickle
from dataclasses import replace
from functools import cache

import pytest
import torch
from tiny_quant import small_calibration, small_denoiser, uniform_plan

from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.finetune_run import finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetune_slices import SliceEnd, SliceOrder, finetune_in_slices, run_slice
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.teacher import record_teacher

STEPS = 3


@cache
def parts():
    denoiser, calibration = small_denoiser(), small_calibration()
    return dict(
        denoiser=denoiser,
        calibration=calibration,
        plan=uniform_plan(denoiser, 3),
        record=record_teacher(denoiser, pictures=4, sampler=calibration.settings.sampler),
        settings=FinetuneSettings(steps=STEPS, batch_size=2, rank=4, low_rank_rate=0.02),
        quant_settings=QuantSettings(activation_bits=4),
    )


def order(folder, seconds=0.0, **changes):
    return SliceOrder(**{**parts(), **changes}, checkpoint=folder / "state.pt", seconds=seconds)


def elsewhere(taken):
    """Carry a slice out as another process would: nothing but pickles in and out."""

    def take(asked):
        taken.append(asked)
        for event in run_slice(pickle.loads(pickle.dumps(asked))):
            yield pickle.loads(pickle.dumps(event))

    return take


def test_slices_of_one_step_end_where_one_piece_ends(tmp_path):
    taken, steps, pictures = [], [], []
    asked = replace(order(tmp_path), preview_seeds=(7,), preview_labels=(1,))
    result = finetune_in_slices(
        asked,
        elsewhere(taken),
        on_step=steps.append,
        on_preview=lambda step, images: pictures.append((step, images.shape)),
    )
    whole = finetune(*parts().values()).adapter
    assert len(taken) == STEPS and [record.step for record in steps] == [1, 2, 3]
    assert pictures[0][0] == 0 and pictures[0][1][0] == 1
    assert result.finished and result.adapter.steps == STEPS
    assert result.adapter.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(result.adapter.tensors[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_stop_ends_the_slice_at_its_next_step_and_keeps_what_was_learned(tmp_path):
    def stop_after_one(done, total, message):
        assert total == STEPS
        raise Cancelled

    result = finetune_in_slices(order(tmp_path, seconds=600.0), report=stop_after_one)
    assert not result.finished and 1 <= result.adapter.steps < STEPS
    assert order(tmp_path).checkpoint.exists()  # it can be resumed


def test_a_host_that_gives_no_time_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="45 s are too short for one step"):
        finetune_in_slices(
            order(tmp_path, seconds=45.0), lambda _: iter([SliceEnd(steps=0, finished=False)] * 2)
        )


def test_moving_a_model_leaves_the_shared_one_where_it_is():
    denoiser = small_denoiser()
    assert denoiser.to("cpu") is denoiser
    moved = denoiser.to("meta")
    assert {p.device.type for p in moved.network.parameters()} == {"meta"}
    assert moved.pipeline.components[moved.component] is moved.network
    assert {p.device.type for p in denoiser.network.parameters()} == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_is_a_sentence():
    with pytest.raises(SettingsError, match="nothing can be computed on 'cuda' here"):
        small_denoiser().to("cuda")
