"""The arithmetic of the lessons in assets/js/learn_math.js against the library and scipy; no server."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from mpqdm_core.affine import choose_qparams_minmax, dequantize, quantize
from mpqdm_core.kurtosis import channel_kurtosis
from mpqdm_core.prescale import prescale_factors
from mpqdm_core.range_search import search_range
from mpqdm_core.relation import relation_loss

pytestmark = pytest.mark.ui
SCRIPT = Path(__file__).parents[2] / "assets" / "js" / "learn_math.js"


@pytest.fixture(scope="module")
def math(browser):
    """Calls a function of the script with JSON."""
    page = browser.new_page()
    page.add_script_tag(path=str(SCRIPT))

    def call(name, *arguments):
        return page.evaluate(f"window.mpqdm.math.{name}(...{json.dumps(arguments)})")

    yield call
    page.close()


@pytest.fixture
def channel():
    values = torch.randn(300, generator=torch.Generator().manual_seed(1))
    values[5] = 5.0
    return values


@pytest.mark.parametrize("grid", ["affine", "mid-rise"])
def test_levels_codes_and_the_range_search(math, channel, grid):
    values = channel.double()
    for bits in (1, 2, 3, 4, 8):
        q = choose_qparams_minmax(values.min(), values.max(), bits, grid)
        ours = math("cover", float(values.min()), float(values.max()), bits, grid)
        assert (ours["scale"], ours["offset"]) == pytest.approx((float(q.scale), float(q.zero_point)))
        assert math("codes", values.tolist(), ours) == quantize(values, q).tolist()
        expected = dequantize(quantize(values, q), q)
        assert math("rounded", values.tolist(), ours) == pytest.approx(expected.tolist())
    for bits in (1, 2, 3, 4):
        found = search_range(channel.unsqueeze(0), bits, grid=grid, exponent=2.0)
        ours = math("search", channel.double().tolist(), bits, grid)
        assert ours["scale"] == pytest.approx(float(found.scale[0]), rel=1e-5)


def test_kurtosis_and_prescaling(math, channel):
    assert math("kurtosis", channel.tolist()) == pytest.approx(
        float(channel_kurtosis(channel[None])[0]), rel=2e-6
    )
    assert math("kurtosis", [2.0] * 5) == 0
    weights, inputs = torch.tensor([0.5, 2.0, 0.0, 1.0]), torch.tensor([20.0, 1.0, 3.0, 0.0])
    for alpha in (0.0, 0.5, 0.9):
        expected = prescale_factors(weights, inputs, alpha=alpha).tolist()
        assert math("prescale", weights.tolist(), inputs.tolist(), alpha) == pytest.approx(expected, rel=1e-5)


def test_the_exchange_finds_the_best_of_all_allocations(math):
    generator = np.random.default_rng(3)
    drops = np.sort(generator.random((4, 4)), axis=1)[:, ::-1]  # errors that fall ever more slowly
    errors = 5 - np.concatenate([np.zeros((4, 1)), np.cumsum(drops, axis=1)], axis=1)  # (4, 5)
    every = [b for b in np.ndindex(5, 5, 5, 5) if sum(b) + 4 == 11]
    best = min(sum(errors[c, b[c]] for c in range(4)) for b in every)
    bits = math("spend", errors.tolist(), 11)
    assert sum(bits) == 11
    assert math("cost", errors.tolist(), bits) == pytest.approx(best)


def test_the_relation_loss(math):
    generator = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 6, 3, generator=generator)  # six places, three features
    as_map = lambda rows: rows.T.reshape(1, 3, 2, 3)  # noqa: E731 - (B, C, h, w)
    expected = float(relation_loss(as_map(student), as_map(teacher), temperature=0.5))
    assert math("relation", student.tolist(), teacher.tolist(), 0.5) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_and_wilson_interval(math):
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(40, 2)), generator.normal(0.3, 2.0, size=(50, 2))
    means, covers = [s.mean(axis=0) for s in (a, b)], [np.cov(s.T) for s in (a, b)]
    root = linalg.sqrtm(covers[0] @ covers[1]).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(covers[0] + covers[1] - 2 * root)
    moments = [math("moments", s.tolist()) for s in (a, b)]
    assert math("frechet", *moments) == pytest.approx(expected)
    for right, tries in ((0, 5), (7, 10), (30, 30)):
        interval = stats.binomtest(right, tries).proportion_ci(method="wilson")
        assert math("wilson", right, tries) == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert math("wilson", 0, 0) == [0, 1]
