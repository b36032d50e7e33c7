import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.inception import InceptionScore

from mpqdm_core.distribution import frechet_distance, inception_score
from mpqdm_core.errors import DataError, SettingsError, ShapeError


def features(n, d=6, seed=0, mean=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(mean, 1.0, size=(n, d)) @ generator.normal(size=(d, d))


def exact_sample(mean, covariance, n=40, seed=0):
    """n samples whose mean and 1/(n-1) covariance are exactly the given ones."""
    white = np.random.default_rng(seed).normal(size=(n, len(mean)))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T + np.asarray(mean)


def slow_distance(a, b):
    """Heusel's formula with a matrix square root."""
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))


def test_two_gaussians_with_a_closed_form():  # diagonal: squared mean distance + sum (sigma1 - sigma2)^2
    a = exact_sample([0.0, 0.0], [[4.0, 0.0], [0.0, 1.0]], seed=1)
    b = exact_sample([3.0, -1.0], [[1.0, 0.0], [0.0, 9.0]], seed=2)
    assert frechet_distance(a, b).value == pytest.approx(9 + 1 + (2 - 1) ** 2 + (1 - 3) ** 2, rel=1e-10)


def test_distance_agrees_with_the_matrix_square_root():
    a, b = features(50, seed=1), features(70, seed=2, mean=0.3)
    result = frechet_distance(a, b, name="sFID")
    assert result.value == pytest.approx(slow_distance(a, b), rel=1e-9)
    assert (result.name, result.n_reference, result.n, result.warning) == ("sFID", 50, 70, None)


def test_a_common_shift_far_from_zero_changes_nothing():
    a, b = features(50, seed=1), features(70, seed=2)
    assert frechet_distance(a + 1e6, b + 1e6).value == pytest.approx(slow_distance(a, b), rel=1e-6)


def test_same_features_have_distance_zero_and_paired_draws_too():
    a = features(50)
    result = frechet_distance(a, a, paired=True)
    assert result.value == pytest.approx(0.0, abs=1e-6)  # sqrt(float64 eps) times the variances
    assert result.interval.low >= 0.0
    assert result.interval.high == pytest.approx(0.0, abs=1e-5)


def test_constant_features_leave_the_distance_of_the_means():
    a, b = np.full((8, 3), 1.0), np.full((9, 3), 3.0)
    result = frechet_distance(a, b)
    assert result.value == pytest.approx(12.0, rel=1e-12)
    assert (result.interval.low, result.interval.high) == pytest.approx((12.0, 12.0))


def test_fewer_samples_than_features_is_finite_and_warned_about():
    a, b = features(5, d=20, seed=1), features(5, d=20, seed=2)
    result = frechet_distance(a, b, resamples=10)
    # the trace of the square root is the sum of the singular values of one centred factor times the other
    factors = [(x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (a, b)]
    nuclear = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + sum(np.sum(f**2) for f in factors) - 2 * nuclear
    assert result.value == pytest.approx(expected, rel=1e-5)
    assert "5 samples for 20 features" in result.warning


def test_interval_holds_the_value_and_narrows_with_n():
    small = frechet_distance(features(40, seed=1), features(40, seed=2, mean=1.0))
    large = frechet_distance(features(640, seed=1), features(640, seed=2, mean=1.0))
    for result in (small, large):
        assert result.interval.low < result.value < result.interval.high
        assert result.interval.resamples == 100
    assert large.interval.high - large.interval.low < small.interval.high - small.interval.low


def test_interval_has_the_spread_of_fresh_samples():
    def fresh(seed):
        generator = np.random.default_rng(seed)
        return generator.normal(size=(200, 2)), generator.normal(1.0, 1.0, size=(200, 2))

    values = [slow_distance(*fresh(seed)) for seed in range(200)]
    result = frechet_distance(*fresh(999), resamples=400)
    width = result.interval.high - result.interval.low
    assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.3)  # both are Monte Carlo


def test_settings_change_the_result():
    a, b = features(30, seed=1), features(30, seed=2)
    base = frechet_distance(a, b).interval
    assert frechet_distance(a, b).interval == base
    assert frechet_distance(a, b, seed=1).interval != base
    assert frechet_distance(a, b, level=0.5).interval.low > base.low
    assert frechet_distance(a, b, paired=True).interval.method.startswith("pairs")
    assert frechet_distance(a, b, resamples=7).interval.resamples == 7


def test_a_value_below_the_teachers_is_warned_about():
    a, b = features(30, seed=1), features(30, seed=2)
    value = frechet_distance(a, b).value
    assert "not better fidelity" in frechet_distance(a, b, teacher=value + 1).warning
    assert frechet_distance(a, b, teacher=value - 1).warning is None


@pytest.mark.parametrize(
    ("a", "b", "error", "match"),
    [
        (np.ones((1, 2)), np.ones((3, 2)), DataError, "reference has 1 samples; at least 2"),
        (np.ones((3, 2)), np.ones((3, 4)), ShapeError, "2 features and candidate 4"),
        (np.ones(3), np.ones((3, 2)), ShapeError, r"\(3,\)"),
        (np.ones((3, 2)), np.array([[0, 0], [0, np.nan]]), DataError, "candidate has NaN .* sample 1"),
    ],
)
def test_features_that_cannot_be_compared(a, b, error, match):
    with pytest.raises(error, match=match):
        frechet_distance(a, b)


def test_paired_sets_have_one_size():
    with pytest.raises(ShapeError, match="3 and 4 samples"):
        frechet_distance(np.ones((3, 2)), np.ones((4, 2)), paired=True)


def test_sure_and_balanced_classes_score_their_number():
    assert inception_score(np.tile(np.eye(4), (5, 1)), splits=1).value == pytest.approx(4.0)


def test_one_class_and_uniform_probabilities_score_one():
    sure = np.tile([1.0, 0.0], (20, 1))
    assert inception_score(sure).value == pytest.approx(1.0)
    assert inception_score(np.full((20, 5), 0.2)).value == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features")
@pytest.mark.filterwarnings("ignore:std\\(\\)")  # the spread over one split, not used here
def test_score_agrees_with_torchmetrics_on_the_same_order():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 5)) * 2)
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)  # one split: the order does not matter
    metric.update(logits)
    assert inception_score(logits.softmax(1), splits=1).value == pytest.approx(
        float(metric.compute()[0]), rel=1e-9
    )


def test_ten_splits_are_the_mean_of_ten_scores():
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=30)
    order = np.random.default_rng(5).permutation(30)
    scores = []
    for start in range(0, 30, 3):
        part = p[order[start : start + 3]]
        marginal = part.mean(axis=0)
        scores.append(
            math.exp(
                np.mean(
                    [sum(q * math.log(q / m) for q, m in zip(row, marginal, strict=True)) for row in part]
                )
            )
        )
    result = inception_score(p, seed=5)
    assert result.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert (result.n, result.n_reference, result.interval.resamples) == (30, None, 200)
    assert result.interval.low <= result.value <= result.interval.high


@pytest.mark.parametrize(
    ("p", "error", "match"),
    [
        (np.full((5, 2), 0.5), DataError, "5 samples; at least 10"),
        (np.full((20, 2), 0.7), DataError, "softmax"),
        (np.tile([1.5, -0.5], (20, 1)), DataError, "softmax"),
        (np.ones(20), ShapeError, "probabilities must be"),
    ],
)
def test_probabilities_that_are_none(p, error, match):
    with pytest.raises(error, match=match):
        inception_score(p)


def test_splits_out_of_range():
    with pytest.raises(SettingsError, match="got 0"):
        inception_score(np.full((20, 2), 0.5), splits=0)
