"""Hull, threshold, weights, settings and the frontier."""

import heapq
import itertools

import numpy as np
import pytest
from allocation_tables import convex_tables, crooked_tables, degenerate_tables, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqdm_core.allocation import POLICIES, SCOPES, WEIGHTINGS, AllocationSettings, allocate, frontier
from mpqdm_core.allocation.hull import convex_gains
from mpqdm_core.allocation.ranked import group_order
from mpqdm_core.allocation.spend import Steps, spend
from mpqdm_core.errors import SettingsError


def slow_hull(errors, widths):
    """Gains of the lower hull of one curve: from each corner go down the steepest chord."""
    gains, i = [], 0
    while i < len(widths) - 1:
        chords = [(errors[i] - errors[k]) / (widths[k] - widths[i]) for k in range(i + 1, len(widths))]
        steepest = max(chords)
        k = max(k for k, chord in enumerate(chords, i + 1) if chord >= steepest - 1e-12)
        gains += [steepest] * (k - i)
        i = k
    return gains


@settings(max_examples=80, deadline=None)
@given(crooked_tables, st.lists(st.integers(1, 8), min_size=2, max_size=8, unique=True).map(sorted))
def test_hull_equals_walking_down_the_steepest_chords(table, widths):
    curve = np.ascontiguousarray(table.error.T[np.array(widths) - 1])
    gains = convex_gains(curve, np.array(widths))
    assert (np.diff(gains, axis=0) <= 0).all()
    slow = np.array([slow_hull(row.astype(float), widths) for row in curve.T]).T
    np.testing.assert_allclose(gains, slow, rtol=1e-4, atol=1e-6 * curve.max())


@settings(max_examples=80, deadline=None)
@given(convex_tables, st.floats(0, 1), st.sampled_from(SCOPES))
def test_spending_equals_a_heap_that_takes_one_step_at_a_time(table, share, scope):
    count = table.channels
    sizes = np.diff(table.layer_start)
    start = table.layer_start if scope == "layer" else np.array([0, count])
    weights = np.repeat(table.weights_per_channel, sizes)
    gains = convex_gains(np.ascontiguousarray(table.error.T), np.arange(1, 9)) / weights.astype(np.float32)
    group_of = np.repeat(np.arange(len(start) - 1), np.diff(start))
    budget = np.array([7 * weights[a:b].sum() * share for a, b in itertools.pairwise(start)])
    steps = Steps(
        gains=gains,
        gaps=np.ones(7, dtype=np.int64),
        weights=weights,
        live=np.ones(count, dtype=bool),
        group_start=start,
        group_of=group_of,
    )
    found = spend(steps, budget)
    for group, (a, b) in enumerate(itertools.pairwise(start)):
        heap = [(-gains[0, channel], channel, 0) for channel in range(a, b)]
        heapq.heapify(heap)
        left, levels = budget[group], np.zeros(count, dtype=int)
        while heap:
            _, channel, step = heapq.heappop(heap)
            if weights[channel] > left:
                break
            left -= weights[channel]
            levels[channel] += 1
            if step < 6:
                heapq.heappush(heap, (-gains[step + 1, channel], channel, step + 1))
        assert found.levels[a:b].tolist() == levels[a:b].tolist()
        assert found.left[group] == pytest.approx(left, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9), min_size=1, max_size=6)
)
def test_group_order_equals_python_sorting(groups):
    flat = np.array([score for group in groups for score in group], dtype=np.float32)
    start = np.concatenate([[0], np.cumsum([len(group) for group in groups])])
    expected = []
    for a, b in itertools.pairwise(start):
        expected += sorted(range(a, b), key=lambda i: (-flat[i], i))
    assert group_order(flat, start).tolist() == expected


def test_relative_weighting_is_the_mean_error_by_energy():
    table = make_table([(6, 4), (5, 9)], seed=4)
    found = allocate(table, AllocationSettings(policy="uniform", average_bits=3, weighting="relative"))
    assert found.predicted_error == pytest.approx(float((table.error[:, 2] / table.energy).mean()), rel=1e-6)
    assert found.per_layer_error.sum() == pytest.approx(found.predicted_error)


def test_sensitivity_weighting_multiplies():
    table = make_table([(6, 4), (5, 9)], seed=4)
    found = allocate(table, AllocationSettings(policy="uniform", average_bits=3, weighting="sensitivity"))
    assert found.predicted_error == pytest.approx(
        float((table.error[:, 2] * table.sensitivity).sum()), rel=1e-6
    )


def test_each_weighting_changes_the_plan():
    table = make_table([(40, 4)], seed=7)
    plans = {
        weighting: tuple(allocate(table, AllocationSettings(average_bits=3, weighting=weighting)).plan.bits)
        for weighting in WEIGHTINGS
    }
    assert len(set(plans.values())) == 3


def test_sensitivity_that_was_not_measured_is_asked_for():
    table = make_table([(6, 4)])
    without = type(table)(
        layer_names=table.layer_names,
        layer_start=table.layer_start,
        weights_per_channel=table.weights_per_channel,
        error=table.error,
        energy=table.energy,
        kurtosis=table.kurtosis,
    )
    with pytest.raises(SettingsError, match="channel_sensitivity"):
        allocate(without, AllocationSettings(weighting="sensitivity"))


def test_uniform_between_two_widths_is_interpolated():
    table = make_table([(10, 4)])
    found = allocate(table, AllocationSettings(average_bits=2.5))
    ends = table.error[:, 1].sum(), table.error[:, 2].sum()
    assert found.predicted_error_uniform == pytest.approx(sum(ends) / 2, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(degenerate_tables, st.sampled_from(SCOPES), st.sampled_from(WEIGHTINGS))
def test_the_frontier_of_optimal_is_the_hull(table, scope, weighting):
    asked = AllocationSettings(scope=scope, weighting=weighting)
    averages = [1.0, 2.0, 3.3, 8.0]
    line = frontier(table, asked, averages)
    points = [
        allocate(
            table, AllocationSettings(scope=scope, weighting=weighting, average_bits=value)
        ).predicted_error
        for value in averages
    ]
    assert (np.diff(line) <= line[0] * 1e-5).all()
    assert line[0] == pytest.approx(points[0], rel=1e-5)
    # Plans are at or above the hull; bins are straightened by at most a sixteenth of their savings.
    assert (line <= np.array(points) + 0.02 * line[0]).all()


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "optimal"])
def test_the_frontier_of_other_policies_is_what_they_predict(policy):
    table = make_table([(30, 4), (20, 9)], seed=1)
    line = frontier(table, AllocationSettings(policy=policy, allowed_bits=(2, 3, 4, 5)), [2, 3, 4.0, 5, 6])
    found = allocate(table, AllocationSettings(policy=policy, allowed_bits=(2, 3, 4, 5), average_bits=4))
    assert line[2] == pytest.approx(found.predicted_error, rel=1e-6)
    assert np.isnan(line[4])


def test_the_frontier_meets_allocate_in_a_large_model():
    table = make_table([(400, 9), (300, 64), (500, 4)], seed=9)
    for scope in SCOPES:
        line = frontier(table, AllocationSettings(scope=scope), [2, 3, 4.5])
        points = [
            allocate(table, AllocationSettings(scope=scope, average_bits=value)).predicted_error
            for value in (2, 3, 4.5)
        ]
        np.testing.assert_allclose(line, points, rtol=5e-3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"policy": "best"},
            "policy must be one of uniform, kurtosis, gain, optimal, random, head-tail, got 'best'",
        ),
        ({"weighting": "l2"}, "weighting must be one of none, relative, sensitivity"),
        ({"scope": "block"}, "scope must be one of layer, model"),
        ({"average_bits": float("nan")}, "average_bits must be a finite number, got nan"),
        ({"average_bits": "four"}, "average_bits must be a number, got 'four'"),
        ({"average_bits": None}, "average_bits must be a number, got None"),
        ({"average_bits": True}, "average_bits must be a number, got True"),
        ({"allowed_bits": ()}, r"allowed_bits must be one or more of 1 to 8, got \[\]"),
        ({"allowed_bits": (3, 9)}, r"allowed_bits must be one or more of 1 to 8, got \[3, 9\]"),
        ({"allowed_bits": 4}, "allowed_bits must be a list of bit-widths, got 4"),
        ({"locked": {"a": 0}}, "layer a can be locked to 1 to 8 bits, got 0"),
        ({"locked": {"a": float("nan")}}, "layer a can be locked to 1 to 8 bits, got nan"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"max_groups": 1.5}, "max_groups must be a whole number"),
        ({"group_fraction": 0.6}, "group_fraction must be above 0 and at most 0.5, got 0.6"),
        ({"extra_groups": 1}, "extra_groups works with kurtosis, random, head-tail, not with optimal"),
    ],
)
def test_settings_say_what_is_wrong(change, text):
    with pytest.raises(SettingsError, match=text):
        AllocationSettings(**change)


def test_settings_survive_a_dictionary():
    asked = AllocationSettings(allowed_bits=(4, 2, 4), locked={"a": 3}, average_bits=3)
    again = AllocationSettings(**asked.as_dict())
    assert again == asked
    assert again.allowed_bits == (2, 4)
