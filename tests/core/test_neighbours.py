import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.neighbours import kernel_distance, precision_recall


def features(n, d=3, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1.0, size=(n, d))


def slow_share(points, centres, k):
    """Share of the points inside a ball, one pair at a time."""
    inside = 0
    for point in points:
        for i, centre in enumerate(centres):
            others = sorted(np.linalg.norm(centre - other) for j, other in enumerate(centres) if j != i)
            if np.linalg.norm(point - centre) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_agree_with_a_double_loop(k):
    a, b = features(25, seed=1), features(20, seed=2, mean=1.0)
    precision, recall = precision_recall(a, b, neighbours=k)
    assert precision.value == pytest.approx(slow_share(b, a, k))
    assert recall.value == pytest.approx(slow_share(a, b, k))
    assert 0.0 < precision.value < 1.0 and 0.0 < recall.value < 1.0  # the case says something
    assert (precision.name, recall.name, precision.n_reference, precision.n) == (
        "precision",
        "recall",
        25,
        20,
    )


def test_hand_case_on_a_line():
    # balls of 0, 1, 2, 3 with k = 1 reach 1: [-1, 4]; the candidate's balls reach 0.5: 3.5..4.5 and 9.5..10.5
    reference = np.array([[0.0], [1.0], [2.0], [3.0]])
    candidate = np.array([[4.0], [4.5], [10.0], [10.5]])
    precision, recall = precision_recall(reference, candidate, neighbours=1)
    assert (precision.value, recall.value) == (0.25, 0.0)  # 4.0 is on the border, and the border counts


def test_a_collapsed_candidate_has_precision_and_no_recall():
    reference = features(50)
    candidate = np.repeat(reference[:1], 10, axis=0)
    precision, recall = precision_recall(reference, candidate)
    assert (precision.value, recall.value) == (1.0, 1 / 50)


def test_the_same_and_constant_sets_lie_on_each_other():
    for same in (features(10), np.ones((10, 2))):
        precision, recall = precision_recall(same, same)
        assert (precision.value, recall.value) == (1.0, 1.0)


def test_rows_in_blocks_give_the_same(monkeypatch):
    a, b = features(25, seed=1), features(20, seed=2)
    whole = precision_recall(a, b)
    monkeypatch.setattr("mpqdm_core.neighbours._ROWS", 7)
    assert precision_recall(a, b) == whole


def test_interval_is_that_of_a_share():
    precision, _ = precision_recall(features(200, seed=1), features(200, seed=2, mean=1.0), resamples=3000)
    half = 1.96 * np.sqrt(precision.value * (1 - precision.value) / 200)
    assert precision.interval.high - precision.value == pytest.approx(half, rel=0.15)  # steps of 1/200


def test_too_few_samples_and_neighbours():
    with pytest.raises(DataError, match="candidate has 3 samples; at least 4"):
        precision_recall(features(10), features(3))
    with pytest.raises(SettingsError, match="got 0"):
        precision_recall(features(10), features(10), neighbours=0)
    with pytest.raises(ShapeError, match="3 features and candidate 2"):
        precision_recall(features(10), features(10, d=2))


def slow_kernel_distance(a, b):
    def mean(x, y, skip):
        pairs = [
            (x[i] @ y[j] / x.shape[1] + 1) ** 3
            for i in range(len(x))
            for j in range(len(y))
            if not (skip and i == j)
        ]
        return np.mean(pairs)

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def test_kernel_distance_agrees_with_a_double_loop_and_torchmetrics():
    a, b = features(30, seed=1), features(30, seed=2, mean=0.5)
    value = kernel_distance(a, b).value
    assert value == pytest.approx(slow_kernel_distance(a, b), rel=1e-10)
    assert value == pytest.approx(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))), rel=1e-10)
    assert kernel_distance(a, b[:17]).value == pytest.approx(slow_kernel_distance(a, b[:17]), rel=1e-10)


@pytest.mark.parametrize("paired", [False, True])
def test_kernel_interval_has_the_spread_of_fresh_samples(paired):
    def fresh(seed):
        a = features(60, seed=seed, mean=0.2)
        return a, (a + 0.5 if paired else features(60, seed=seed + 10_000, mean=0.7))

    values = [kernel_distance(*fresh(seed), paired=paired, blocks=2).value for seed in range(150)]
    widths = [
        np.ptp([(i := kernel_distance(*fresh(s), paired=paired).interval).low, i.high]) for s in range(20)
    ]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.3)


def test_kernel_settings():
    a, b = features(30, seed=1), features(30, seed=2)
    base = kernel_distance(a, b)
    assert base.interval.resamples == 20
    assert kernel_distance(a, b, blocks=5).interval.resamples == 5
    assert kernel_distance(a, b, seed=1).value == pytest.approx(base.value, rel=1e-9)
    assert kernel_distance(a, b, seed=1).interval != base.interval
    assert kernel_distance(a, b, level=0.5).interval.high < base.interval.high
    with pytest.raises(DataError, match="at least 4"):
        kernel_distance(a[:3], b)
    with pytest.raises(ShapeError, match="30 and 29"):
        kernel_distance(a, b[:29], paired=True)


def test_same_paired_sets_have_no_spread():
    a = features(30)
    result = kernel_distance(a, a, paired=True)
    assert result.value < 0.0  # unbiased: a picture is compared with itself only across the sets
    small = kernel_distance(a[:4], a[:4] + 1)
    assert np.isfinite([small.value, small.interval.low, small.interval.high]).all()
