"""Whole runs of the Distill page on a tiny model: finished, stopped and resumed, failed."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mpqdm_core.runs import RunRegistry, RunState
from pages import _distill_work as work
from pages._distill_adapters import ADAPTERS, student_of
from pages._distill_settings import Order
from pages._workspace import WORKSPACES, Workspace

PATIENCE_S = 120.0
STEPS = 4


@pytest.fixture
def order(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "core"))
    from tiny_quant import STEPS as STEPS_OF_SAMPLER
    from tiny_quant import small_calibration, small_denoiser, uniform_plan

    from mpqdm_core.finetune_settings import FinetuneSettings

    monkeypatch.setattr(work, "LEAST_BETWEEN", 2)
    monkeypatch.setattr(work, "PREVIEW_SEEDS", (0, 1))
    denoiser = replace(small_denoiser(), sampler=STEPS_OF_SAMPLER)
    place = Workspace(
        key="small",
        title="small",
        source="small",
        class_names=("a", "b", "c"),
        denoiser=denoiser,
        calibration=small_calibration(),
    )
    WORKSPACES.put("small", place)
    solved = SimpleNamespace(
        work=place,
        table=SimpleNamespace(settings={"grid": "mid-rise"}),
        choice=SimpleNamespace(activation_bits=4, settings=SimpleNamespace(policy="uniform")),
        allocation=SimpleNamespace(plan=uniform_plan(denoiser, 3)),
        changed={},
    )
    settings = FinetuneSettings(
        steps=STEPS, batch_size=3, rank=4, relation_weight=1.0, low_rank_rate=0.02, activation_rate=1e-3
    )
    return Order(solved=solved, settings=settings, losses="relation")


@pytest.fixture
def registry():
    return RunRegistry()


def over(run):
    end = time.monotonic() + PATIENCE_S
    while run.alive:
        assert time.monotonic() < end, "the run did not end"
        time.sleep(0.01)
    return run.state


def same_tensors(one, other):
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def test_a_run_shows_its_way_and_leaves_an_adapter_that_draws_its_last_pictures(order, registry):
    from mpqdm_core.adapter import Adapter
    from mpqdm_core.sampling import sample

    run = registry.submit(order.title, lambda run: work.train(run, order))
    assert over(run) is RunState.FINISHED, run.error
    assert [record.step for record in run.steps] == [1, 2, 3, 4]
    assert [preview.step for preview in run.previews] == [0, 2, 4]
    assert [diagnosis.step for diagnosis in run.diagnoses] == [0, 2]
    assert run.names == ("a, seed 0", "b, seed 1")
    assert same_tensors(Adapter.load(run.adapter_file), run.adapter)
    offered = ADAPTERS.get(run.id[:6])
    assert offered.title.startswith("fine-tuned 4 steps: uniform, 3.00 weight bits, 4-bit activations")
    student = student_of(offered, lambda *_: None)
    drawn = sample(student.denoiser, labels=[0, 1], seeds=[0, 1]).images
    assert np.array_equal(drawn, run.previews[-1].images)
    mse = ((drawn / 255.0 - run.reference / 255.0) ** 2).mean(axis=(1, 2, 3))
    assert run.previews[-1].psnr_db == pytest.approx(float((-10 * np.log10(mse)).mean()))
    assert work.SPEEDS.get("small") > 0
    assert not run.checkpoint.exists()


def test_a_stopped_run_keeps_its_adapter_and_resumes_to_the_same_end(order, registry, monkeypatch):
    whole = registry.submit("whole", lambda run: work.train(run, order))
    over(whole)
    run = registry.submit("stopped", lambda run: work.train(run, order))
    add_step = run.add_step

    def stop_after_two(record):
        add_step(record)
        if record.step == 2:
            registry.stop(run)

    monkeypatch.setattr(run, "add_step", stop_after_two)
    assert over(run) is RunState.STOPPED
    assert run.adapter.steps == 2 and run.adapter_file.exists() and run.previews[-1].step == 0
    monkeypatch.setattr(run, "add_step", add_step)
    registry.resume(run)
    assert over(run) is RunState.FINISHED, run.error
    assert [record.step for record in run.steps] == [1, 2, 3, 4]
    assert same_tensors(run.adapter, whole.adapter)


def test_a_stopped_run_takes_one_step_and_stops_again(order, registry, monkeypatch):
    run = registry.submit("by hand", lambda run: work.train(run, order))
    monkeypatch.setattr(run, "_left", 1)
    assert over(run) is RunState.STOPPED and [record.step for record in run.steps] == [1]
    registry.resume(run, steps=2)
    assert over(run) is RunState.STOPPED and [record.step for record in run.steps] == [1, 2, 3]
    registry.resume(run)
    assert over(run) is RunState.FINISHED and run.steps[-1].step == STEPS


def test_a_failed_run_offers_its_last_good_state(order, registry, monkeypatch):
    from mpqdm_core import finetune_run
    from mpqdm_core.errors import DataError
    from mpqdm_core.finetuner import Finetuner

    step = Finetuner.step

    def fail_at_three(tuner):
        if tuner.done == 2:
            raise DataError("the loss is nan at step 3")
        return step(tuner)

    monkeypatch.setattr(finetune_run, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(Finetuner, "step", fail_at_three)
    run = registry.submit("failing", lambda run: work.train(run, order))
    assert over(run) is RunState.FAILED and run.error == "the loss is nan at step 3"
    assert run.adapter.steps == 2 and run.adapter_file.exists()


def test_trying_two_steps_tells_the_time_and_keeps_nothing(order):
    work.SPEEDS.clear()
    told = []
    seconds = work.measure_speed(order, lambda *event: told.append(event))
    assert seconds == pytest.approx(work.estimate(order)) and seconds > work.SETUP_S
    assert told[-1][2] == "trying two steps"


def test_a_run_is_kept_with_its_curves_previews_and_the_doctors_numbers(
    order, registry, monkeypatch, tmp_path
):
    import gradio as gr

    from pages import _ablation_store, _distill_keep

    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path))
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(_ablation_store._text, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(work, "RUNS", registry)
    visitor = SimpleNamespace(session_hash="one")
    with pytest.raises(gr.Error, match="no adapter to keep yet"):
        _distill_keep.on_keep(visitor, "nobody's")
    run = registry.submit(order.title, lambda run: work.train(run, order))
    over(run)
    assert "with its curves" in _distill_keep.on_keep(visitor, run.id)
    store = _ablation_store.library(visitor).store
    (kept,) = store.runs()
    assert kept.kind == "finetune" and kept.settings["finetuning"] == "task + relation"
    assert kept.curves["loss"].y == tuple(record.loss for record in run.steps)
    assert kept.curves["preview_psnr_db"].x == (0.0, 2.0, 4.0)
    looks = kept.curves["gradient_relation"]
    assert looks.y == pytest.approx([look.term_gradients["relation"] for look in run.diagnoses])
    assert kept.curves["largest_clipped_share"].y[0] == max(run.diagnoses[0].clipped_inputs.values())
    assert kept.metrics["psnr_db"].value == pytest.approx(run.previews[-1].psnr_db)
    assert kept.metrics["task_after_loss"].value == run.adapter.losses["task after"]
    assert kept.metrics["nominal_bits"].value == 3.0 and kept.pictures.names == ("a, seed 0", "b, seed 1")
    store.note(kept.id, "mine")
    assert "kept already" in _distill_keep.on_keep(visitor, run.id)
    assert [again.note for again in store.runs()] == ["mine"]
