import math

import numpy as np
import pytest
import torch

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.relation import relation_logits, relation_loss, smoothed


def slow_relation_loss(student, teacher, temperature):
    """Mean over samples and positions of KL(teacher row || student row), in plain loops and float64."""

    def rows(feature):
        _, height, width = feature.shape
        columns = [feature[:, y, x].astype(float) for y in range(height) for x in range(width)]
        columns = [column / math.sqrt((column**2).sum()) for column in columns]
        table = []
        for a in columns:
            weights = [math.exp(float(a @ b) / temperature) for b in columns]
            table.append([weight / sum(weights) for weight in weights])
        return table

    total, count = 0.0, 0
    for own, wanted in zip(student, teacher, strict=True):
        for p_row, q_row in zip(rows(wanted), rows(own), strict=True):
            total += sum(p * math.log(p / q) for p, q in zip(p_row, q_row, strict=True))
            count += 1
    return total / count


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_relation_loss_equals_a_slow_scalar_version(temperature):
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(2, 2, 5, 3, 2))
    expected = slow_relation_loss(student, teacher, temperature)
    got = relation_loss(torch.tensor(student), torch.tensor(teacher), temperature=temperature)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_sum_is_the_mean_times_the_number_of_rows():
    student, teacher = torch.randn(2, 3, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    mean = relation_loss(student, teacher)
    assert relation_loss(student, teacher, reduction="sum").item() == pytest.approx(
        3 * 16 * mean.item(), rel=1e-5
    )


def test_a_copy_of_the_teacher_costs_nothing_and_neither_does_its_size():
    teacher = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    assert relation_loss(7.0 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_gradient_reaches_the_student_only():
    student = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    teacher = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(4)).requires_grad_()
    relation_loss(student, teacher).backward()
    assert float(student.grad.norm()) > 0
    assert teacher.grad is None


def test_pooling_averages_positions():
    features = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(5))
    by_hand = features.reshape(1, 5, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(relation_logits(features, pool=4), relation_logits(by_hand))
    assert relation_logits(features, pool=16).shape == (1, 64, 64)  # never enlarged


def test_smoothed_is_the_mean_of_the_steps():
    assert smoothed([torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 5.0)]).item() == 3.5


def test_bad_input_gets_a_sentence():
    a = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ShapeError, match="student and teacher must agree"):
        relation_loss(a, torch.zeros(1, 2, 3, 4))
    with pytest.raises(ShapeError, match=r"features must be \(B, C, h, w\)"):
        relation_logits(torch.zeros(2, 3))
    with pytest.raises(SettingsError, match="temperature must be above 0"):
        relation_logits(a, temperature=0.0)
    with pytest.raises(SettingsError, match="reduction must be"):
        relation_loss(a, a, reduction="median")
    with pytest.raises(ShapeError, match="expected features of one shape"):
        smoothed([])
