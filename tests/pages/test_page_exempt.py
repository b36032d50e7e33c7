"""Other rounding and other exempt layers: nothing is shown before it was measured, and rows stay rows."""

import json
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
import synthetic

from mpqdm_core import permalink
from mpqdm_core.errors import BudgetError, SettingsError
from mpqdm_core.permalink import PageState
from pages import _budget_more, _budget_tables, _exempt, budget, shell
from pages import _budget_solve as solving
from pages._rounding import Rounding
from pages._session import workspace

LAYER = "mid_block.resnets.0.conv1"
ALL = list(range(1, 9))


def controls(policy="optimal", extra=0, grid="mid-rise", power=2.4, prescale=True, eight=None, full=None):
    first = (4.0, 8, False, ALL, policy, "none", "layer", {})
    return (*first, extra, grid, power, prescale, eight, full)


def run(**changes):
    return budget.on_budget(synthetic.NAME, (None, None), *controls(**changes))


def solve(**changes):
    return solving.solve(synthetic.NAME, solving.read_choice(*controls(**changes)))


@pytest.mark.parametrize("other", [{"grid": "affine"}, {"power": 2.0}])
def test_figures_of_another_rounding_are_not_shown_but_offered(other):
    notice, summary, *_, plan, _, measure = run(**other)
    assert "press Measure" in notice and "mid-rise grid, range search with power 2.4" in notice
    assert summary == "" and plan is None and measure["visible"]


def test_a_table_of_the_other_grid_is_used_once_it_was_measured():
    other = synthetic.error_table(8, seed=3)
    workspace(synthetic.NAME).extra[Rounding(grid="affine")] = other
    assert solve(grid="affine").table.error.tolist() == other.error.tolist()
    assert solve().table.error.tolist() != other.error.tolist()


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        ({"grid": "mid-rise", "range_exponent": 2.4, "prescale_alpha": 0.5}, True),
        ({"grid": "affine", "range_exponent": 2.4, "prescale_alpha": 0.5}, False),
        ({"grid": "mid-rise", "range_exponent": 2.0, "prescale_alpha": 0.5}, False),
        ({"grid": "mid-rise", "range_exponent": 2.4, "prescale_alpha": None}, False),
    ],
)
def test_a_table_holds_for_the_rounding_it_was_measured_with(settings, holds):
    assert Rounding().holds_for(settings) is holds


@pytest.mark.parametrize("wrong", [{"grid": "log"}, {"power": 3.0}])
def test_an_unknown_rounding_names_what_there_is(wrong):
    with pytest.raises(SettingsError, match=r"must be .*, got"):
        solving.read_choice(*controls(**wrong))


def test_a_layer_taken_out_of_the_budget_leaves_with_its_channels():
    solved, before = solve(eight=["conv_in", LAYER], full=[]), solve()
    assert LAYER not in solved.allocation.plan.layer_names
    assert solved.table.channels == before.table.channels - 48  # the channels of this layer
    kept = np.delete(before.table.error, before.table.layer_slice(LAYER), axis=0)
    assert np.array_equal(solved.table.error, kept)
    assert next(row for row in solved.layers if row.name == LAYER).reason == "chosen by hand"


def test_a_layer_put_into_the_budget_needs_its_prices_first():
    notice, *_, measure = run(eight=[], full=[])
    assert "conv_in" in notice and "press Measure" in notice and measure["visible"]


def test_a_layer_that_was_measured_meanwhile_joins_the_budget_and_leaves_it_again():
    work = workspace(synthetic.NAME)
    plain = work.table(8)
    first = _budget_tables.select(plain, plain.layer_names[:1])
    renamed = type(first)(
        layer_names=("conv_in",),
        layer_start=first.layer_start,
        weights_per_channel=first.weights_per_channel,
        error=first.error * 2,
        energy=first.energy,
        kurtosis=first.kurtosis,
        sensitivity=first.sensitivity,
        settings=plain.settings,
    )
    work.extra[Rounding()] = _budget_tables.join(plain, renamed, [row.name for row in work.layers])
    wide = solve(eight=[], full=[]).table
    assert wide.layer_names == ("conv_in", *plain.layer_names)  # network order, not order of measuring
    assert np.array_equal(wide.error[: first.channels], first.error * 2)
    assert np.array_equal(wide.error[first.channels :], plain.error)
    assert solve().table.layer_names == plain.layer_names


def test_effects_follow_their_layers_and_are_dropped_where_one_table_has_none():
    table = workspace(synthetic.NAME).table(8)
    effects = np.arange(4.0 * len(table.layer_names)).reshape(-1, 4)
    known = replace(table, layer_effect=effects)
    some = table.layer_names[2], table.layer_names[0]
    assert _budget_tables.select(known, some).layer_effect.tolist() == effects[[2, 0]].tolist()
    parts = [_budget_tables.select(known, names) for names in (table.layer_names[3:], table.layer_names[:3])]
    joined = _budget_tables.join(*parts, table.layer_names)
    assert joined.layer_names == table.layer_names and joined.layer_effect.tolist() == effects.tolist()
    without = replace(parts[1], layer_effect=None)
    assert _budget_tables.join(parts[0], without, table.layer_names).layer_effect is None


@pytest.mark.parametrize(
    ("eight", "full", "words"),
    [
        (["conv_in", LAYER], [LAYER], f"{LAYER} is kept at 8 bits and in full precision"),
        (["nowhere"], [], "no layer called 'nowhere'"),
        (["conv_in", *synthetic.layer_names()], [], "every layer is exempt"),
    ],
)
def test_lists_that_make_no_sense_are_a_sentence(eight, full, words):
    notice, *_, measure = run(eight=eight, full=full)
    assert words in notice.replace("&#x27;", "'") and not measure["visible"]


def test_the_lists_and_what_they_change_are_two_ways_to_say_one_thing():
    layers = workspace(synthetic.NAME).layers
    assert _exempt.rules(layers) == (["conv_in"], [])
    changed = {"conv_in": None, LAYER: "full precision"}
    assert _exempt.lists(layers, changed) == ([], [LAYER])
    assert _exempt.changes(layers, *_exempt.lists(layers, changed)) == changed


def test_another_model_takes_its_own_rules_and_a_fitting_choice_stays():
    eight, full = _budget_more.on_layers(synthetic.NAME, ["of another model"], [])
    assert (eight.value, full.value) == (["conv_in"], [])
    assert eight.choices[0] == ("conv_in", "conv_in")
    eight, full = _budget_more.on_layers(synthetic.NAME, [], [LAYER])
    assert (eight.value, full.value) == ([], [LAYER])


def test_extra_groups_raise_the_mean_of_the_swap_only():
    # 48 channels make groups of 4: two groups of one bit more are 8 of 48 channels, 24 channels give 4 of 24
    assert solve(policy="kurtosis", extra=2).allocation.plan.mean_bits == pytest.approx(4 + 1 / 6)
    assert solve(policy="optimal", extra=2).allocation.plan.mean_bits <= 4
    assert "our reading" in run(policy="kurtosis", extra=2)[0]
    assert _budget_more.on_policy("kurtosis").interactive and not _budget_more.on_policy("gain").interactive


def test_more_extra_groups_than_the_slider_has_are_a_sentence():
    with pytest.raises(BudgetError, match="extra groups must be from 0 to 5, got 9"):
        solving.read_choice(*controls(extra=9))


def test_the_uniform_plan_of_the_comparison_has_no_extra_groups():
    solved = solve(policy="kurtosis", extra=2)
    assert solving.at_same_budget(solved, policy="uniform").plan.mean_bits == 4


def test_a_clicked_point_is_a_layer_of_the_plan_that_is_shown():
    solved = solve(eight=["conv_in", synthetic.layer_names()[0]], full=[])
    event = gr.EventData(None, {"x": 0})
    selection, update = budget.on_layer(solved.key, event)
    assert selection == (synthetic.layer_names()[1], None)
    assert json.loads(update["selected"])["layer"] == synthetic.layer_names()[1]


def test_the_link_carries_rounding_and_exempt_layers():
    state = PageState(
        extra_groups=3,
        grid="affine",
        range_exponent=2.0,
        prescale=False,
        exempt={"conv_in": None, LAYER: "8-bit"},
    )
    update = shell.write_link(
        "model", synthetic.NAME, (None, None), {}, *shell._widget_values(state, synthetic.NAME)
    )
    assert json.loads(update["state"])["query"] == permalink.encode(state)
