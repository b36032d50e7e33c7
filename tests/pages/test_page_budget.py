"""Handlers of the Bit budget page, called as plain functions."""

import json
from dataclasses import replace

import gradio as gr
import pandas as pd
import pytest
import synthetic

from mpqdm_core.errors import BudgetError, SettingsError
from pages import _budget_show, budget, outliers
from pages import _budget_solve as solving
from pages._budget_overrides import lock_table, on_edit, on_free, on_lock
from pages._workspace import WORKSPACES, Workspace

LAYER = "mid_block.resnets.0.conv1"
ALL = list(range(1, 9))


def controls(weight_bits=4.0, activation_bits=8, full=False, allowed=ALL, policy="optimal", locks=None):
    return weight_bits, activation_bits, full, allowed, policy, "sensitivity", "model", locks or {}


def run(**changes):
    return budget.on_budget(synthetic.NAME, (None, None), *controls(**changes))


def figure(outputs):
    return json.loads(outputs[2]["fig"])


def test_the_map_follows_the_budget():
    low, high = figure(run(weight_bits=2.0)), figure(run(weight_bits=6.0))
    assert low["data"][0]["cells"] != high["data"][0]["cells"]
    assert low["meta"]["rows"] == list(synthetic.layer_names())


def test_the_mean_of_the_map_is_the_budget():
    solved = solving.solve(synthetic.NAME, solving.read_choice(*controls(weight_bits=3.3)))
    assert 3.29 < solved.allocation.plan.mean_bits <= 3.3


def test_the_same_settings_are_solved_once():
    choice = solving.read_choice(*controls())
    first = solving.solve(synthetic.NAME, choice)
    assert solving.solve(synthetic.NAME, choice).allocation is first.allocation


def test_an_impossible_budget_says_the_range_and_keeps_the_rest():
    notice, *others = run(weight_bits=6.0, allowed=[2, 3])
    assert "2" in notice and "3" in notice and "mpq-warning" in notice
    *kept, measurable = others
    assert all(update == gr.skip() for update in kept) and measurable["visible"] is False


def test_the_page_says_when_effects_of_layers_were_not_measured():
    solved = solving.solve(synthetic.NAME, solving.read_choice(*controls()))
    measured = replace(solved.table, layer_effect=[[1.0]] * len(solved.table.layer_names))
    assert "predicted noise, from gradients alone" in _budget_show.summary(solved)
    assert "gradients alone" not in _budget_show.summary(replace(solved, table=measured))


@pytest.mark.parametrize("value", [None, "four", float("nan"), float("inf")])
def test_a_budget_that_is_no_number_is_a_sentence(value):
    notice, *_ = run(weight_bits=value)
    assert "must be a number from 1 to 8" in notice


@pytest.mark.parametrize("value", [0.0, -3, 9, 1e9])
def test_a_budget_outside_one_to_eight_names_the_range(value):
    with pytest.raises(BudgetError, match="from 1 to 8"):
        solving.read_choice(*controls(weight_bits=value))


def test_no_allowed_width_is_a_sentence():
    with pytest.raises(SettingsError, match="tick at least one"):
        solving.read_choice(*controls(allowed=[]))


def test_activation_bits_without_a_table_say_what_was_measured():
    notice, *_ = run(activation_bits=6)
    assert "measured: 4, 8, full precision" in notice


def test_a_model_that_was_not_measured_shows_nothing_of_the_one_before():
    WORKSPACES.put("fresh", Workspace(key="fresh", title="Fresh", source="fresh"))
    notice, summary, *figures, plan, _, measure = budget.on_budget("fresh", (None, None), *controls())
    assert "Fresh has not been measured yet" in notice
    assert summary == "" and plan is None and measure["visible"] is False
    assert [figure["fig"] for figure in figures] == [""] * 4
    sentence, heat, rows = outliers.on_look(
        "fresh", "weights", "kurtosis", "channel_ratio", 0, True, False, None
    )
    assert "Fresh has not been measured yet" in sentence and heat["fig"] == "" and rows == []


def test_a_locked_layer_keeps_its_bits_inside_the_budget():
    solved = solving.solve(synthetic.NAME, solving.read_choice(*controls(weight_bits=3.0, locks={LAYER: 8})))
    assert set(solved.allocation.plan.layer_bits(LAYER)) == {8}
    assert solved.allocation.plan.mean_bits <= 3.0


def test_the_search_curve_shows_every_group_count():
    outputs = budget.on_budget(
        synthetic.NAME, (LAYER, 0), *controls(policy="kurtosis")[:5], "none", "layer", {}
    )
    curve = json.loads(outputs[5]["fig"])
    assert len(curve["data"][0]["y"]) == 6


def test_clicking_the_frontier_sets_the_slider_within_its_range():
    event = gr.EventData(None, {"x": 9.7, "y": 1.0})
    assert budget.on_frontier(event) == 8.0


def test_the_plan_that_is_written_is_the_plan_on_the_page():
    key = run(weight_bits=5.0)[6]
    written, _ = budget.on_write(key)
    assert json.loads(written)["settings"]["average_bits"] == 5.0


def test_locks_are_read_by_layer_name_even_when_the_table_was_sorted():
    rows = pd.DataFrame(lock_table(synthetic.NAME, {})).iloc[::-1]
    rows.loc[rows[0] == LAYER, 2] = "7"
    assert on_edit(synthetic.NAME, {}, rows) == {LAYER: 7}


@pytest.mark.parametrize("cell", ["nine", "0", "9", "3.5"])
def test_a_lock_that_is_no_bit_width_is_refused(cell):
    rows = pd.DataFrame([[LAYER, 1, cell]])
    with pytest.raises(gr.Error, match="whole number of bits from 1 to 8"):
        on_edit(synthetic.NAME, {}, rows)


def test_locking_and_freeing_the_selected_layer():
    locks, _ = on_lock(synthetic.NAME, {}, (LAYER, 3), "6")
    assert locks == {LAYER: 6}
    assert on_free(synthetic.NAME, locks, (LAYER, 3))[0] == {}


def test_locking_needs_a_selection():
    with pytest.raises(gr.Error, match="Select a layer first"):
        on_lock(synthetic.NAME, {}, (None, None), "6")
