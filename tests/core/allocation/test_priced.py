"""Errors priced by what rounding a layer was measured to do."""

from dataclasses import replace

import numpy as np
import pytest
from allocation_tables import convex_tables, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqdm_core.allocation import AllocationSettings, allocate, errors_alone
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import DataError, ShapeError

WHOLE = AllocationSettings(policy="optimal", average_bits=3.0, weighting="sensitivity", scope="model")


def measured(table, effect):
    return replace(table, layer_effect=np.asarray(effect, dtype=np.float32))


@settings(max_examples=40, deadline=None)
@given(convex_tables, st.integers(0, 10**6), st.integers(1, 4))
def test_a_layer_rounded_alone_costs_what_was_measured(table, seed, widths):
    effect = np.random.default_rng(seed).lognormal(0, 2, (len(table.layer_names), widths))
    given_effect = measured(table, effect)
    for bits in range(1, widths + 1):
        assert errors_alone(given_effect, "sensitivity", bits) == pytest.approx(effect[:, bits - 1], rel=1e-5)
    plain = errors_alone(table, "sensitivity", widths)
    for bits in range(widths + 1, 9):  # beyond, the factor of the widest that was measured
        wanted = errors_alone(table, "sensitivity", bits) * effect[:, -1] / plain
        assert errors_alone(given_effect, "sensitivity", bits) == pytest.approx(wanted, rel=1e-4)


def test_other_weightings_do_not_know_of_it():
    table = make_table([(4, 9), (6, 4)])
    changed = measured(table, [[5.0] * 4, [7.0] * 4])
    for weighting in ("none", "relative"):
        assert errors_alone(changed, weighting, 2).tolist() == errors_alone(table, weighting, 2).tolist()


def test_bits_go_where_rounding_was_measured_to_hurt():
    table = make_table([(20, 9), (20, 9)])
    sums = [errors_alone(table, "sensitivity", bits) for bits in (1, 2, 3, 4)]
    hurting = np.array(sums).T * [[100.0], [1.0]]
    before, after = (allocate(t, WHOLE).plan for t in (table, measured(table, hurting)))
    assert after.layer_bits("block.0").mean() > before.layer_bits("block.0").mean()
    assert after.mean_bits <= 3.0


@pytest.mark.parametrize("strange", [np.nan, 0.0, np.inf])
def test_what_was_not_measured_is_priced_as_before(strange):
    table = make_table([(4, 9), (6, 4)])
    plain = [errors_alone(table, "sensitivity", bits) for bits in range(1, 9)]
    changed = measured(table, [[strange] * 4, 2 * np.array(plain[:4])[:, 1]])
    for bits in range(1, 9):
        first, second = errors_alone(changed, "sensitivity", bits)
        assert first == pytest.approx(plain[bits - 1][0], rel=1e-6)
        assert second == pytest.approx(2 * plain[bits - 1][1], rel=1e-5)


def test_effects_are_kept_in_the_file_and_in_the_hash(tmp_path):
    table = make_table([(4, 9), (6, 4)])
    changed = measured(table, [[1.0, 0.5], [2.0, 1.0]])
    changed.save(tmp_path / "table.npz")
    again = ErrorTable.load(tmp_path / "table.npz")
    assert again.layer_effect.tolist() == [[1.0, 0.5], [2.0, 1.0]]
    assert again.content_hash == changed.content_hash != table.content_hash


def test_effects_that_do_not_fit_are_one_sentence():
    table = make_table([(4, 9), (6, 4)])
    with pytest.raises(ShapeError, match=r"layer_effect must be \(2, 1 to 8\), got \(3, 4\)"):
        measured(table, np.ones((3, 4)))
    with pytest.raises(DataError, match="effects are mean squares"):
        measured(table, [[1.0], [-1.0]])
