"""The Distill page as plain functions: what is ordered, what is shown, and only what is new."""

import json
import threading
import time
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import synthetic

from mpqdm_core.errors import BudgetError, DataError, SettingsError
from mpqdm_core.runs import Preview, RunRegistry, RunState
from pages import _budget_solve, _distill_show, _distill_view, _distill_work, distill
from pages._distill_settings import PRESETS, Knobs, read_order
from pages._figures_distill import MAX_POINTS, loss_figure, shown

PATIENCE_S = 30.0
CUSTOM = [40, 2, 3, 8, 1.0, 2.0, 0.5, 0.2, 0.01, 1e-4, 1e-3]
PARTS = (
    "seen timer status start stop resume losses previews doctor result log download keep step".split()  # noqa: SIM905
)


@pytest.fixture
def solved():
    choice = _budget_solve.read_choice(3, 4, False, list(range(1, 9)), "optimal", "sensitivity", "model", {})
    return _budget_solve.solve(synthetic.NAME, choice)


@pytest.fixture
def registry(monkeypatch):
    fresh = RunRegistry()
    for module in (distill, _distill_show):
        monkeypatch.setattr(module, "RUNS", fresh)
    return fresh


@pytest.fixture
def gate(monkeypatch):
    """Stands in for the training; goes on until it is let through."""
    opened = threading.Event()

    def work(run, order):
        while not opened.wait(0.002):
            run.report(3, 40, "fine-tuning")
        return True

    monkeypatch.setattr(distill, "train", work)
    return opened


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def named(outputs):
    return dict(zip(PARTS, outputs, strict=True))


def is_skipped(output):
    return output == gr.skip()


def start(plan, preset="custom", losses="task"):
    name, *outputs = distill.on_start("", plan, preset, losses, 0, *CUSTOM)
    return name, named(outputs)


def test_the_intention_names_the_budget_and_the_device(solved):
    said = _distill_view.intention(solved)
    assert "3.00 weight bits, optimal, 4-bit activations" in said and "CPU" in said
    assert "25 layers" in said and "little to win" not in said
    assert "choose one on Bit budget" in _distill_view.intention(None)


def test_presets_fix_the_numbers_and_custom_takes_them_from_the_widgets(solved):
    quick = read_order(solved, "quick", "task", 7, *CUSTOM).settings
    assert (quick.steps, quick.batch_size, quick.seed) == (Knobs().steps, Knobs().pictures, 7)
    custom = read_order(solved, "custom", "task", 7, *CUSTOM).settings
    assert (custom.steps, custom.batch_size, custom.window, custom.rank) == (40, 2, 3, 8)
    assert (custom.low_rank_rate, custom.weight_scale_rate, custom.activation_rate) == (0.01, 1e-4, 1e-3)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ("task", {"relation_weight": 0.0, "feature_weight": 0.0, "detach_features": False}),
        ("relation", {"relation_weight": 2.0, "temperature": 0.2, "feature_weight": 0.0}),
        ("features", {"relation_weight": 0.0, "feature_weight": 0.5}),
        ("released", {"relation_weight": 100.0, "detach_features": True, "reduction": "sum"}),
    ],
)
def test_the_losses_are_those_of_the_methods(solved, losses, expected):
    settings = read_order(solved, "custom", losses, 0, *CUSTOM).settings.as_dict()
    assert {name: settings[name] for name in expected} == expected
    assert settings["task_weight"] == 1.0


@pytest.mark.parametrize(
    ("place", "value", "error", "sentence"),
    [
        (0, None, SettingsError, "the number of steps must be a number"),
        (0, 1.5, SettingsError, "whole number, got 1.5"),
        (1, 99, BudgetError, "pictures per step must be from 1 to 32, got 99"),
        (8, -1, BudgetError, "learning rate of the corrections must be from 0 to 1"),
        (4, 0, SettingsError, "at least one loss"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(solved, place, value, error, sentence):
    custom = [*CUSTOM]
    custom[place] = value
    with pytest.raises(error, match=sentence):
        read_order(solved, "custom", "task", 0, *custom)
    _, said = distill.on_plan(solved.key, "custom", "task", 0, *custom)
    assert "mpq-warning" in said


def test_the_time_is_told_from_the_last_steps(solved):
    _distill_work.SPEEDS.clear()
    order = read_order(solved, "custom", "task", 0, *CUSTOM)
    assert _distill_work.estimate(order) is None
    _, said = distill.on_plan(solved.key, "quick", "task", 0, *CUSTOM)
    assert "Not timed on this machine yet" in said and f"{PRESETS['quick'].seconds} s" in said
    _distill_work.SPEEDS.put(solved.work.key, 0.5)
    # 40 steps of 2 pictures and 3 timesteps; drawn: 12 pictures of the teacher, 4 for each of 3 + 2 previews
    trained, drawn = 40 * 2 * 3, 20 * (12 + 4 * 5)
    assert _distill_work.estimate(order) == pytest.approx(4.0 + 0.5 * (trained + 0.3 * drawn))
    _, said = distill.on_plan(solved.key, "custom", "task", 0, *CUSTOM)
    assert "About 3.7 min on this machine" in said  # 220 s


def test_starting_without_a_plan_says_where_to_make_one(registry):
    with pytest.raises(gr.Error, match="choose one on Bit budget"):
        start(None)


def test_a_run_starts_is_followed_and_stops(solved, registry, gate):
    name, first = start(solved.key)
    run = registry.get(name)
    assert first["timer"].active and not first["start"].visible and first["stop"].visible
    until(lambda: run.done == 3)
    later = named(distill.on_tick(name, first["seen"]))
    assert "3 of 40" in later["status"]
    assert all(is_skipped(later[part]) for part in ("losses", "previews", "doctor", "result", "log"))
    assert is_skipped(named(distill.on_tick(name, later["seen"]))["start"])
    asked = named(distill.on_stop(name, later["seen"]))
    until(lambda: not run.alive)
    after = named(distill.on_tick(name, asked["seen"]))
    assert after["resume"].visible and after["start"].visible and not after["timer"].active
    assert after["step"].visible and not first["step"].visible and not first["keep"].visible
    assert "before training began" in after["status"]
    again = named(distill.on_resume(name, after["seen"]))
    assert again["timer"].active
    gate.set()
    until(lambda: run.state is RunState.FINISHED)
    assert "Finished" in named(distill.on_tick(name, again["seen"]))["status"]


def test_one_visitor_trains_one_model_at_a_time_and_the_next_waits(solved, registry, gate):
    name, _ = start(solved.key)
    with pytest.raises(gr.Error, match="on its way already"):
        distill.on_start(name, solved.key, "quick", "task", 0, *CUSTOM)
    other, outputs = start(solved.key)
    assert "one run comes first" in outputs["status"]
    gate.set()
    until(lambda: registry.get(other).state is RunState.FINISHED)


def test_a_reload_shows_the_run_from_the_start(solved, registry, gate):
    name, _ = start(solved.key)
    registry.get(name).say("hello")
    shown = named(distill.on_open(name))
    assert "hello" in shown["log"] and shown["timer"].active
    gate.set()
    until(lambda: not registry.get(name).alive)


@pytest.mark.parametrize("remembered", ["", None, "0123456789abcdef", {"a": 1}, 5, ["x"]])
def test_what_no_run_belongs_to_shows_an_empty_page(registry, remembered):
    shown = named(distill.on_open(remembered))
    assert shown["status"] == "" and not shown["timer"].active and not shown["download"].visible
    with pytest.raises(gr.Error, match="start a new one"):
        distill.on_resume(remembered, None)


def test_a_failed_run_shows_its_sentence_and_keeps_what_it_drew(solved, registry, monkeypatch):
    def fail(run, order):
        run.reference = np.zeros((4, 2, 2, 3), np.uint8)
        run.add_preview(Preview(step=0, images=run.reference, psnr_db=11.0))
        raise DataError("the loss is <nan> at step 3")

    monkeypatch.setattr(distill, "train", fail)
    name, _ = start(solved.key)
    until(lambda: not registry.get(name).alive)
    shown = named(distill.on_open(name))
    assert "the loss is &lt;nan&gt; at step 3" in shown["status"] and shown["resume"].visible
    assert json.loads(shown["previews"].props["previews"])["moments"][0]["psnr"] == 11.0


def test_the_curve_has_every_step_and_its_mean_over_a_pass(registry):
    run = registry.submit("one", lambda _: True)
    for step, loss in enumerate([4.0, 2.0, 6.0], 1):
        run.add_step(SimpleNamespace(step=step, loss=loss, timesteps=(step % 2,)))
    raw, mean = json.loads(_distill_view.losses(run))["data"]
    assert raw["x"] == [1, 2, 3] and raw["y"] == [4.0, 2.0, 6.0]
    assert mean["y"] == [4.0, 3.0, 4.0]  # two timesteps, one a step: a pass is two steps


@pytest.mark.parametrize("count", [0, 1, MAX_POINTS, MAX_POINTS + 1, 5000])
def test_long_curves_are_thinned_and_end_at_the_end(count):
    kept = shown(count)
    assert len(kept) <= MAX_POINTS and kept == sorted(set(kept))
    assert kept[-1:] == ([count - 1] if count else [])
    values = [1.0] * count
    assert len(loss_figure("a", range(count), values, np.array(values))["data"][0]["x"]) == len(kept)


def test_the_doctor_speaks_in_sentences(registry):
    run = registry.submit("one", lambda _: True)
    assert "looks at gradients" in _distill_view.doctor(run)
    seen = SimpleNamespace(
        step=10,
        term_gradients={"task": 3.0, "relation": 1.0},
        layer_gradients={"mid_block.resnets.0.conv1": 0.5},
        scale_ratio={"mid_block.resnets.0.conv1": 0.9},
        clipped_inputs={"mid_block.resnets.0.conv1": 0.25},
        flags=(),
    )
    run.add_diagnosis(seen)
    said = _distill_view.doctor(run)
    for piece in ("Nothing looks wrong", "75%", "25.0%", "0.900", "before step 11"):
        assert piece in said
    run.add_diagnosis(
        SimpleNamespace(**{**vars(seen), "step": 20, "flags": ("The relation loss has no gradient",)})
    )
    assert "has no gradient" in _distill_view.doctor(run)
    assert "Nothing looks wrong" not in _distill_view.doctor(run)
