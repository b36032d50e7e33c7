"""The trainer on a tiny random U-Net."""

import pytest
import torch
from tiny_quant import small_calibration, small_denoiser, uniform_plan
from tiny_training import FAST, small_record, student, tuner

from mpqdm_core.adapter import load_tensors, take_adapter
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import Finetuner
from mpqdm_core.quantization import quantize
from mpqdm_core.teacher import record_teacher


def test_training_lowers_the_loss_on_the_record():
    run = tuner(steps=40)
    before = run.evaluate(small_record())["task"]
    for _ in range(40):
        run.step()
    assert run.evaluate(small_record())["task"] < 0.8 * before
    run.close()


def test_bfloat16_products_give_nearly_the_same_loss_and_train_float32_tensors():
    exact, lower = tuner(steps=30), tuner(steps=30, precision="bfloat16")
    wanted = exact.evaluate(small_record())["task"]
    before = lower.evaluate(small_record())["task"]
    assert before != wanted and before == pytest.approx(wanted, rel=0.05)
    for _ in range(30):
        lower.step()
    assert lower.evaluate(small_record())["task"] < 0.85 * before
    assert {tensor.dtype for tensor in lower.state_dict()["tensors"].values()} == {torch.float32}
    exact.close()
    lower.close()


def test_biases_alone_lower_the_loss_and_travel_in_the_adapter():
    still = dict(rank=None, low_rank_rate=0.0, weight_scale_rate=0.0, weight_zero_point_rate=0.0)
    run = tuner(steps=30, bias_rate=3e-3, activation_rate=0.0, **still)
    before = run.evaluate(small_record())["task"]
    for _ in range(30):
        run.step()
    after = run.evaluate(small_record())["task"]
    assert after < 0.9 * before
    adapter = take_adapter(run.student, run.settings, timesteps=small_record().timesteps, steps=30)
    run.close()
    other = student()
    load_tensors(other, adapter)
    fresh = Finetuner(other, small_record(), FinetuneSettings(**FAST), teacher=small_denoiser())
    assert fresh.evaluate(small_record())["task"] == pytest.approx(after, rel=1e-4)
    fresh.close()


def test_gradients_of_a_window_equal_one_plain_backward_pass_over_all_of_it():
    run = tuner(relation_weight=0.5, shares=2, batch_size=4, bias_rate=1e-3)
    window, record = run._next()
    got = run._backward(record, window)
    named = list(run.student.denoiser.network.named_parameters())
    mine = {name: p.grad.clone() for name, p in named if p.grad is not None}
    rows = [row.grad for row in run.slots.rows]
    for parameter in run.student.denoiser.network.parameters():
        parameter.grad = None

    loss = run.losses.weighted(run.losses.terms(record, window.slots, window.pictures))
    loss.backward()
    plain = {name: p.grad for name, p in named if p.grad is not None}
    assert got == pytest.approx(loss.item(), rel=1e-4)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, plain[name], rtol=2e-3, atol=1e-6)
    columns = torch.stack([column.grad for column in run.slots.columns], dim=1)
    for slot, row in enumerate(rows):
        if slot in window.slots:
            torch.testing.assert_close(row, columns[slot], rtol=2e-3, atol=1e-6)
        else:
            assert row is None and not columns[slot].any()
    run.close()


@pytest.mark.parametrize("window", [2, 3])
def test_one_call_for_a_window_is_a_call_for_each_of_its_timesteps(window):
    run = tuner(window=window)
    pictures, slots = torch.arange(2), tuple(range(window))
    together = run.losses.terms(small_record(), slots, pictures)["task"]
    each = [run.losses.terms(small_record(), (slot,), pictures)["task"] for slot in slots]
    torch.testing.assert_close(together, torch.stack(each).sum(), rtol=1e-4, atol=0)
    run.close()


def test_the_relation_loss_alone_moves_the_student():
    run = tuner(task_weight=0.0, relation_weight=1.0)
    assert run.examine().term_gradients["relation"] > 0
    before = run.evaluate(small_record())["relation"]
    for _ in range(6):
        run.step()
    assert run.evaluate(small_record())["relation"] < before
    run.close()


def test_as_released_the_relation_loss_has_no_gradient_and_the_doctor_says_so():
    run = tuner(relation_weight=100.0, detach_features=True, reduction="sum")
    diagnosis = run.examine()
    assert diagnosis.term_gradients["relation"] == 0.0
    assert diagnosis.term_gradients["task"] > 0
    assert diagnosis.flags[0] == "The relation loss has no gradient: it trains nothing."
    run.close()


def test_detached_features_train_exactly_like_the_task_alone():
    task_only, released = tuner(), tuner(relation_weight=100.0, detach_features=True)
    for _ in range(3):
        task_only.step()
        released.step()
    for name, tensor in task_only.state_dict()["tensors"].items():
        assert torch.equal(tensor, released.state_dict()["tensors"][name]), name
    task_only.close()
    released.close()


def test_only_ranges_of_visited_timesteps_move():
    run = tuner()
    before = torch.stack([column.detach().clone() for column in run.slots.columns], dim=1)
    visited = run.order.at(0).slots
    run.step()
    moved = (torch.stack(list(run.slots.columns), dim=1) != before).any(dim=1)
    assert moved.tolist() == [slot in visited for slot in range(len(before))]
    run.close()


def test_ranges_can_move_in_proportion_to_themselves():
    run = tuner(student(activation_bits=8), relative_ranges=True, activation_rate=1e-2, shuffle=False)
    start = [column.detach().clone() for column in run.slots.columns]
    slots = [small_record().timesteps.index(step) for step in run.step().timesteps]
    shares = []
    for place, (before, column) in enumerate(zip(start, run.slots.columns, strict=True)):
        moved = (column.detach() - before)[slots].abs()
        unit = before[slots].abs() if place % 2 == 0 else torch.ones(len(slots))  # scales, then zero-points
        shares.append(moved / unit)
    moved = torch.stack(shares)  # Adam's first step is the rate, or less where a gradient is next to nothing
    assert moved.max() <= 1.001e-2
    assert moved[::2].median() > 0.99e-2 and moved[1::2].max() > 0.99e-2
    run.close()


def test_at_eight_bits_proportional_ranges_train_where_equal_ones_destroy():
    losses = {}
    for relative in (False, True):
        run = tuner(student(activation_bits=8), steps=40, relative_ranges=relative, activation_rate=3e-2)
        before = run.evaluate(small_record())["task"]
        for _ in range(40):
            run.step()
        losses[relative] = run.evaluate(small_record())["task"] / before
        run.close()
    assert losses[True] < 0.8 < 1.2 < losses[False]


def test_ranges_stay_those_of_the_layers_themselves():
    run = tuner()
    run.step()
    scales = [layer.activation.scale for layer in run.layers.values()]
    for column, scale in zip(run.slots.columns[::2], scales, strict=True):
        assert column is scale
    for slot, row in enumerate(run.slots.rows):
        torch.testing.assert_close(row[0::2], torch.stack([scale[slot] for scale in scales]))
    run.close()


def test_the_same_seed_gives_the_same_student_whatever_the_number_of_workers(monkeypatch):
    one, other = tuner(), tuner()
    other._workers.close()
    other._workers = type(other._workers)(1)
    for _ in range(4):
        assert one.step() == other.step()
    for name, tensor in one.state_dict()["tensors"].items():
        assert torch.equal(tensor, other.state_dict()["tensors"][name]), name
    one.close()
    other.close()


@pytest.mark.parametrize("way", ["teacher", "student"])
def test_a_run_taken_up_from_its_state_ends_like_an_uninterrupted_one(way):
    straight = tuner(way=way)
    for _ in range(5):
        straight.step()
    first = tuner(way=way)
    for _ in range(3):  # in the middle of a pass of two windows
        first.step()
    state = first.state_dict()
    first.close()
    second = tuner(way=way)
    second.load_state_dict(state)
    for _ in range(2):
        second.step()
    for name, tensor in straight.state_dict()["tensors"].items():
        assert torch.equal(tensor, second.state_dict()["tensors"][name]), name
    straight.close()
    second.close()


def test_guided_task_is_the_difference_of_what_the_sampler_uses():
    run = tuner(task_on="guided", window=1)
    record = small_record()
    index = torch.tensor([0, 3])
    got = run.losses.terms(record, (1,), index)["task"]
    rows = record.arguments(1, index, "cpu")
    with torch.no_grad():
        out = run.student.denoiser.network(**rows).sample
    target = record.prediction[1, index].flatten(0, 1)
    weight = record.sampler.guidance_scale
    guided = [(x[0::2] + weight * (x[1::2] - x[0::2])) for x in (out, target)]
    assert got.item() == pytest.approx((guided[0] - guided[1]).square().mean().item(), rel=1e-4)
    run.close()


def test_sampler_weights_are_the_squared_coefficients_of_a_ddim_step():
    run = tuner(step_weights="sampler")
    scheduler = run.student.denoiser.pipeline.scheduler
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(len(small_record().timesteps))
    moved = []
    for timestep in small_record().timesteps:
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        moved.append(scheduler.step(one, timestep, zero).prev_sample.item() ** 2)
    expected = torch.tensor(moved) / (sum(moved) / len(moved))
    torch.testing.assert_close(torch.tensor(run.losses._step_weights), expected, rtol=1e-3, atol=1e-5)
    run.close()


def test_starting_at_the_error_leaves_the_rounded_weights_nearly_as_they_were():
    plain, started = student(), student()
    run = tuner(started, start="error")
    for name, layer in plain.layers.items():
        if name not in run.layers:
            continue
        with torch.no_grad():
            rounded, now = layer.quantized_weight(), run.layers[name].quantized_weight()
        moved = (rounded != now).float().mean()
        assert moved < 0.2, name
        assert run.layers[name].low_rank.b.any(), name
    run.close()


def test_what_does_not_belong_together_is_refused():
    frozen = quantize(small_denoiser(), small_calibration(), uniform_plan(small_denoiser(), 3))
    with pytest.raises(DataError, match="is frozen: make the student with"):
        Finetuner(frozen, small_record(), FinetuneSettings(**FAST))
    with pytest.raises(SettingsError, match="needs the teacher itself"):
        Finetuner(student(), small_record(), FinetuneSettings(**FAST, way="student"))
    no_features = record_teacher(
        small_denoiser(), pictures=2, sampler=small_calibration().settings.sampler, features=False
    )
    with pytest.raises(SettingsError, match="need a teacher's record with features"):
        Finetuner(student(), no_features, FinetuneSettings(**FAST, relation_weight=1.0))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 up"),
        ({"low_rank_rate": float("nan")}, "low_rank_rate must be a finite number"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"task_weight": 0.0}, "nothing would be trained"),
        ({"way": "sideways"}, "way must be one of teacher, student"),
        (
            {"task_weight": 0.0, "relation_weight": 1.0, "detach_features": True},
            "detached features",
        ),
    ],
)
def test_impossible_settings_get_a_sentence(changes, sentence):
    with pytest.raises(SettingsError, match=sentence):
        FinetuneSettings(**changes)
