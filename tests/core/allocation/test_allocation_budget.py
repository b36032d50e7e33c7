"""The budget holds, whatever the policy."""

import numpy as np
import pytest
from allocation_tables import (
    allowed_sets,
    averages,
    convex_tables,
    crooked_tables,
    degenerate_tables,
    make_table,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpqdm_core.allocation import POLICIES, SCOPES, AllocationSettings, allocate, feasible_range
from mpqdm_core.errors import BudgetError, SettingsError

policies = st.sampled_from(POLICIES)
scopes = st.sampled_from(SCOPES)
RANKED = ("uniform", "kurtosis", "random", "head-tail")
EXACT = ("uniform", "kurtosis", "gain", "random", "head-tail")


def shares(table, scope):
    """Channel ranges that meet the average on their own, with the weights of their channels."""
    weights = np.repeat(table.weights_per_channel, np.diff(table.layer_start))
    if scope == "model":
        return [(slice(0, table.channels), weights)]
    bounds = zip(table.layer_start[:-1], table.layer_start[1:], strict=True)
    return [(slice(a, b), weights[a:b]) for a, b in bounds]


@settings(max_examples=150, deadline=None)
@given(convex_tables, policies, scopes, averages, allowed_sets)
def test_never_above_and_within_one_channels_step_below(table, policy, scope, average, allowed):
    asked = AllocationSettings(policy=policy, scope=scope, average_bits=average, allowed_bits=allowed)
    assume(min(allowed) <= average <= max(allowed))
    plan = allocate(table, asked).plan
    assert set(plan.bits.tolist()) <= set(allowed)
    widest = max(np.diff(sorted(allowed)), default=0)
    for part, weights in shares(table, scope):
        left = (average * weights - weights * plan.bits[part].astype(int)).sum()
        assert left > -1e-6
        # A plan that spends everything it can stops where the next step, of at most this size, does not fit.
        assert left < max(widest * weights.max(), 1e-6) + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.one_of(convex_tables, crooked_tables), st.sampled_from(EXACT), st.integers(1, 8))
def test_an_exchange_of_bits_is_exact_in_every_layer(table, policy, average):
    plan = allocate(table, AllocationSettings(policy=policy, average_bits=average)).plan
    assert plan.layer_mean_bits.tolist() == [average] * len(table.layer_names)
    assert plan.mean_bits == average


@settings(max_examples=100, deadline=None)
@given(degenerate_tables, policies, scopes, averages, st.data())
def test_locks_are_honoured_inside_the_budget(table, policy, scope, average, data):
    names = data.draw(st.lists(st.sampled_from(table.layer_names), unique=True))
    locked = {name: data.draw(st.integers(1, 8)) for name in names}
    asked = AllocationSettings(policy=policy, scope=scope, average_bits=average, locked=locked)
    low, high = feasible_range(table, asked)
    if not low <= average <= high:
        with pytest.raises(BudgetError, match=f"{average:g} bits is not feasible") as caught:
            allocate(table, asked)
        assert (caught.value.minimum, caught.value.maximum) == (low, high)
        return
    plan = allocate(table, asked).plan
    for name, bits in locked.items():
        assert set(plan.layer_bits(name).tolist()) == {bits}
    assert plan.mean_bits <= average + 1e-9


@settings(max_examples=60, deadline=None)
@given(convex_tables, policies, st.integers(2, 7), scopes)
def test_every_channel_is_in_exactly_one_bit_group_and_the_mean_is_their_mean(table, policy, average, scope):
    plan = allocate(table, AllocationSettings(policy=policy, average_bits=average, scope=scope)).plan
    groups = {bits: np.flatnonzero(plan.bits == bits) for bits in range(1, 9)}
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(table.channels))
    total = sum(
        int(bits) * int(weights)
        for name, weights in zip(plan.layer_names, plan.weights_per_channel, strict=True)
        for bits in plan.layer_bits(name)
    )
    count = int((np.diff(plan.layer_start) * plan.weights_per_channel).sum())
    assert plan.mean_bits == pytest.approx(total / count, rel=1e-12)


def test_the_feasible_range_weighs_layers_by_their_weights():
    table = make_table([(10, 9), (10, 1)])
    asked = AllocationSettings(allowed_bits=(2, 4), locked={"block.0": 8})
    assert feasible_range(table, asked) == ((90 * 8 + 10 * 2) / 100, (90 * 8 + 10 * 4) / 100)
    with pytest.raises(
        BudgetError, match=r"2, 4 bits allowed and 1 of the layers locked.*7\.400 to 7\.600 bits"
    ):
        allocate(table, asked)


def test_a_locked_layer_lowers_the_average_of_the_others():
    table = make_table([(10, 4), (20, 4)])
    result = allocate(table, AllocationSettings(policy="optimal", average_bits=4, locked={"block.0": 6}))
    assert result.plan.layer_mean_bits.tolist() == [6, 3]
    assert any("the others have 3.000 bits" in note for note in result.notes)


def test_all_layers_locked_decides_nothing():
    table = make_table([(4, 4)])
    asked = AllocationSettings(average_bits=3, locked={"block.0": 3})
    result = allocate(table, asked)
    assert result.plan.bits.tolist() == [3, 3, 3, 3]
    assert "every layer is locked: the policy decides nothing" in result.notes


def test_an_unknown_locked_layer_is_named_with_the_nearest():
    with pytest.raises(SettingsError, match=r"layer 'block.O' cannot be locked.*did you mean 'block.0'"):
        allocate(make_table([(4, 4)]), AllocationSettings(locked={"block.O": 3}))


@pytest.mark.parametrize("average", [0.99, 8.01, -1, 100])
def test_an_average_outside_the_widths_is_refused_with_the_range(average):
    with pytest.raises(BudgetError, match=r"the mean can be 1\.000 to 8\.000 bits per weight"):
        allocate(make_table([(4, 4)]), AllocationSettings(average_bits=average))


def test_fractions_of_a_channel_do_not_get_lost_in_rounding():
    plan = allocate(make_table([(10, 9)]), AllocationSettings(policy="uniform", average_bits=2.3)).plan
    assert plan.mean_bits == 2.3


@settings(max_examples=60, deadline=None)
@given(convex_tables, st.floats(1, 7.9), st.floats(0, 0.1))
def test_a_larger_budget_never_takes_bits_from_a_channel_under_uniform(table, average, more):
    bits = [
        allocate(table, AllocationSettings(policy="uniform", average_bits=value)).plan.bits
        for value in (average, average + more)
    ]
    assume(int(average) == int(average + more) and round(average) == round(average + more))
    assert (bits[1] >= bits[0]).all()
