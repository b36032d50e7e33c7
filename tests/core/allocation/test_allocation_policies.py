"""Each policy against a slow one that shares no code with it."""

import itertools

import numpy as np
import pytest
from allocation_tables import convex_tables, crooked_tables, degenerate_tables, make_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpqdm_core.allocation import POLICIES, SCOPES, WHOLE_MODEL, AllocationSettings, allocate
from mpqdm_core.error_table import ErrorTable

RANKINGS = ("kurtosis", "head-tail")


def slow_swap(table, name, base, score):
    """The paper's rule for one layer, in loops: bits and the search curve."""
    part = table.layer_slice(name)
    error = table.error[part].astype(float)
    count = len(error)
    group = count // 10
    order = sorted(range(count), key=lambda channel: (-score[part][channel], channel))
    curve, plans = [], []
    for g in range(6):
        bits = np.full(count, base)
        bits[order[: g * group]] += 1
        bits[order[count - g * group :]] -= 1
        possible = (g == 0) or (group > 0 and 1 < base < 8)
        curve.append(sum(error[c, bits[c] - 1] for c in range(count)) if possible else np.nan)
        plans.append(bits)
    return plans[int(np.nanargmin(curve))], curve


@settings(max_examples=60, deadline=None)
@given(crooked_tables, st.sampled_from(RANKINGS), st.integers(1, 8))
def test_swaps_equal_a_loop_over_channels(table, policy, base):
    result = allocate(table, AllocationSettings(policy=policy, average_bits=base))
    score = table.kurtosis if policy == "kurtosis" else -np.arange(table.channels)
    for name in table.layer_names:
        bits, curve = slow_swap(table, name, base, score)
        np.testing.assert_allclose(result.search_curves[name], curve, rtol=1e-6)
        assert result.plan.layer_bits(name).tolist() == bits.tolist()


def best_by_trying_all(error, weights, widths, spend, exact=False):
    """Smallest error of any plan with at most (or exactly) `spend` bits times weights."""
    best = np.inf
    for bits in itertools.product(widths, repeat=len(error)):
        cost = sum(w * b for w, b in zip(weights, bits, strict=True))
        if cost == spend or (cost < spend and not exact):
            best = min(best, sum(float(error[c, b - 1]) for c, b in enumerate(bits)))
    return best


tiny = st.tuples(st.integers(1, 5), st.integers(0, 10**6))


@settings(max_examples=40, deadline=None)
@given(tiny, st.integers(4, 16).map(lambda quarter: quarter / 4))
def test_optimal_is_the_best_of_all_plans_where_curves_are_convex(size, average):
    channels, seed = size
    table = make_table([(channels, 9)], seed=seed)
    asked = AllocationSettings(policy="optimal", average_bits=average, allowed_bits=(1, 2, 3, 4))
    best = best_by_trying_all(table.error, [9] * channels, (1, 2, 3, 4), average * 9 * channels)
    assert allocate(table, asked).predicted_error == pytest.approx(best, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(tiny, st.integers(2, 3), st.floats(0, 2))
def test_optimal_is_within_one_channel_of_the_best_of_all_plans(size, average, noise):
    channels, seed = size
    table = make_table([(channels, 9)], seed=seed, noise=noise)
    asked = AllocationSettings(policy="optimal", average_bits=average, allowed_bits=(1, 2, 3, 4))
    one_channel_less = average * 9 * channels - 9 * 3  # the widest step from 1 to 4 bits
    if one_channel_less < 9 * channels:
        return
    best = best_by_trying_all(table.error, [9] * channels, (1, 2, 3, 4), one_channel_less, exact=True)
    assert allocate(table, asked).predicted_error <= best * (1 + 1e-5)


@settings(max_examples=40, deadline=None)
@given(tiny, st.integers(2, 4))
def test_gain_is_the_best_exchange(size, base):
    channels, seed = size
    table = make_table([(channels, 9)], seed=seed)
    widths = (base - 1, base, base + 1)
    best = best_by_trying_all(table.error, [9] * channels, widths, base * 9 * channels, exact=True)
    found = allocate(table, AllocationSettings(policy="gain", average_bits=base))
    assert set(found.plan.bits.tolist()) <= set(widths)
    assert found.predicted_error == pytest.approx(best, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(crooked_tables, st.integers(1, 8), st.sampled_from(["none", "relative", "sensitivity"]))
def test_following_the_table_is_never_worse_than_uniform(table, base, weighting):
    for policy in ("kurtosis", "gain", "optimal", "random", "head-tail"):
        found = allocate(table, AllocationSettings(policy=policy, average_bits=base, weighting=weighting))
        assert found.predicted_error <= found.predicted_error_uniform * (1 + 1e-5), policy


@settings(max_examples=60, deadline=None)
@given(convex_tables, st.floats(1, 8), st.sampled_from(SCOPES))
def test_optimal_is_never_worse_than_the_others_on_the_same_budget(table, average, scope):
    errors = {
        policy: allocate(table, AllocationSettings(policy=policy, average_bits=average, scope=scope))
        for policy in POLICIES
    }
    weights = np.repeat(table.weights_per_channel, np.diff(table.layer_start))
    widest = weights.max() / weights if scope == "model" else np.ones(table.channels)
    # What one channel's step is worth at most, in each layer or once; small channels may take its place.
    step = (table.error[:, 0] - table.error[:, 1]) * widest
    slack = step.max() * (1 if scope == "model" else len(table.layer_names)) * 2
    for policy, other in errors.items():
        extra = 0.0 if scope == "layer" else slack
        assert errors["optimal"].predicted_error <= other.predicted_error * (1 + 1e-5) + extra, policy


@settings(max_examples=60, deadline=None)
@example(
    make_table([(1, 1), (17, 1), (20, 1), (13, 1), (40, 1)], seed=1, degenerate=True), "kurtosis", 2
)  # groups of two, and seven channels that have a rank
@given(degenerate_tables, st.sampled_from(["kurtosis", "gain", "optimal", "random"]), st.integers(1, 8))
def test_channels_worth_nothing_are_never_rewarded(table, policy, base):
    result = allocate(table, AllocationSettings(policy=policy, average_bits=base))
    rows = table.error.astype(float)
    worthless = ~np.isfinite(rows).all(axis=1) | (rows == 0).all(axis=1)
    assert result.plan.bits[worthless].max(initial=1) <= base
    if policy == "optimal":
        assert set(result.plan.bits[worthless].tolist()) <= {1}
    assert np.isfinite(result.predicted_error)
    if worthless.any():
        assert any("worth nothing" in note for note in result.notes)


def test_zero_groups_are_the_uniform_bits():
    table = make_table([(30, 9), (12, 4)], seed=3)
    for policy in ("kurtosis", "random", "head-tail"):
        swap = allocate(table, AllocationSettings(policy=policy, average_bits=4, max_groups=0))
        uniform = allocate(table, AllocationSettings(policy="uniform", average_bits=4))
        assert swap.plan.bits.tolist() == uniform.plan.bits.tolist()
        assert swap.plan.content_hash == uniform.plan.content_hash
        assert swap.predicted_error == uniform.predicted_error == uniform.predicted_error_uniform


def outlier_table():
    """Ten channels: the last has the heaviest tail and a large error, the first costs nothing to demote."""
    error = np.tile(4.0 ** -np.arange(1, 9), (10, 1))
    error[9] *= 100
    error[0] *= 0.001
    return ErrorTable(
        layer_names=("conv",),
        layer_start=[0, 10],
        weights_per_channel=[9],
        error=error,
        energy=np.ones(10),
        kurtosis=np.arange(10) + 3.0,
    )


def test_one_swap_by_hand():
    found = allocate(outlier_table(), AllocationSettings(policy="kurtosis", average_bits=2))
    assert found.plan.bits.tolist() == [1, 2, 2, 2, 2, 2, 2, 2, 2, 3]
    before = (8 + 100 + 0.001) / 16
    after = 8 / 16 + 100 / 64 + 0.001 / 4
    np.testing.assert_allclose(found.search_curves["conv"][:2], [before, after], rtol=1e-6)
    assert found.predicted_error == pytest.approx(after)
    assert found.predicted_error_uniform == pytest.approx(before)


def test_a_layer_of_nine_channels_is_not_mixable():
    found = allocate(make_table([(9, 4)]), AllocationSettings(policy="kurtosis", average_bits=4))
    assert found.plan.bits.tolist() == [4] * 9
    assert np.isnan(found.search_curves["block.0"][1:]).all()
    assert any("not mixable: block.0" in note for note in found.notes)


def test_no_swap_without_widths_at_equal_distance():
    found = allocate(
        make_table([(20, 4)]), AllocationSettings(policy="kurtosis", average_bits=4, allowed_bits=(2, 4, 8))
    )
    assert found.plan.bits.tolist() == [4] * 20
    assert any("no swap around 4 bits" in note for note in found.notes)


def test_swaps_take_the_next_symmetric_pair_when_neighbours_are_not_allowed():
    asked = AllocationSettings(policy="kurtosis", average_bits=4, allowed_bits=(2, 4, 6))
    plan = allocate(outlier_table(), asked).plan
    assert plan.bits.tolist() == [2, 4, 4, 4, 4, 4, 4, 4, 4, 6]


def test_extra_groups_exceed_the_budget_and_say_whose_reading_it_is():
    asked = AllocationSettings(policy="kurtosis", average_bits=2, extra_groups=1, max_groups=0)
    found = allocate(make_table([(20, 4)]), asked)
    assert found.plan.mean_bits == 2.1
    assert any("our reading" in note and "exceeds 2" in note for note in found.notes)


def test_random_depends_on_its_seed_alone():
    table = make_table([(40, 4), (40, 4)], seed=5)

    def draw(seed, average=3.5, **more):
        asked = AllocationSettings(policy="random", average_bits=average, seed=seed, **more)
        return allocate(table, asked).plan.bits.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    # The other layer keeps 3.5 bits when one is locked, and its draw stays as it was.
    assert draw(1, 3.25, locked={"block.0": 3})[40:] == draw(1)[40:]


def test_whole_model_scope_moves_bits_between_layers_and_keeps_one_curve():
    table = make_table([(20, 4), (20, 64)], seed=2)
    optimal = allocate(table, AllocationSettings(average_bits=3, scope="model"))
    within = allocate(table, AllocationSettings(average_bits=3, scope="layer"))
    assert optimal.plan.layer_mean_bits[0] > 3 > optimal.plan.layer_mean_bits[1]
    assert optimal.predicted_error < within.predicted_error
    swap = allocate(table, AllocationSettings(policy="kurtosis", average_bits=3, scope="model"))
    assert list(swap.search_curves) == [WHOLE_MODEL]
    assert any("paper ranks within each layer" in note for note in swap.notes)


def test_unspent_bits_are_said():
    table = make_table([(10, 4)])
    error = table.error.copy()
    error[2:] = 0
    dead = ErrorTable(
        layer_names=table.layer_names,
        layer_start=table.layer_start,
        weights_per_channel=table.weights_per_channel,
        error=error,
        energy=table.energy,
        kurtosis=table.kurtosis,
    )
    found = allocate(dead, AllocationSettings(average_bits=4))
    assert found.plan.bits.tolist() == [8, 8] + [1] * 8
    assert any("1.600 bits per weight were not spent" in note for note in found.notes)
