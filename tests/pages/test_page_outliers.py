"""Handlers of the Outliers page, called as plain functions."""

import base64
import json

import gradio as gr
import numpy as np
import pytest
import synthetic

from mpqdm_core.errors import SettingsError
from pages import _channel, outliers
from pages import _outlier_view as seeing
from pages._session import workspace

LAYER = "mid_block.resnets.0.conv1"


def look(side="weights", statistic="kurtosis", inputs="channel_ratio", step=0, options=(True, False, 0)):
    return outliers.on_look(synthetic.NAME, side, statistic, inputs, step, *options)


def test_the_worst_channel_of_the_list_is_the_worst_of_all():
    _, _, rows = look(statistic="crest")
    values = synthetic.outlier_map().weights["crest"]
    assert rows[0][2] == pytest.approx(float(values.max()), rel=1e-4)
    row = synthetic.layer_names().index(rows[0][0])
    assert int(synthetic.starts()[row]) + rows[0][1] == int(values.argmax())


def test_the_sentence_counts_the_layers_that_hold_the_outliers():
    sentence, _, _ = look()
    assert "of 25 layers hold 80% of the excess kurtosis" in sentence


def test_inputs_are_shown_by_timestep():
    sentence, update, _ = look(side="activations", inputs="absmax", step=3)
    assert f"timestep {synthetic.outlier_map().timesteps[3]}" in sentence
    assert json.loads(update["fig"])["meta"]["layer_only"]


@pytest.mark.parametrize("threshold", ["many", float("nan")])
def test_a_threshold_that_is_no_number_is_a_sentence(threshold):
    notice, *others = look(options=(True, False, threshold))
    assert "threshold must be a number" in notice
    assert all(update == gr.skip() for update in others)


def test_the_threshold_cuts_the_list():
    _, _, rows = look(options=(True, False, 5.0))
    assert rows and all(row[2] > 5.0 for row in rows)


def test_a_channel_comes_with_its_weights_and_their_rounding():
    work = workspace(synthetic.NAME)
    found = json.loads(_channel.channel_json(work, LAYER, 5, 4, prescaled=False))
    values = np.frombuffer(base64.b64decode(found["values"]), np.float32)
    codes = np.frombuffer(base64.b64decode(found["codes"]), np.uint8).reshape(8, -1)
    assert np.array_equal(values, work.weight(LAYER)[5].ravel())
    for bits in (1, 4, 8):
        scale, offset = found["scale"][bits - 1], found["offset"][bits - 1]
        rounded = (codes[bits - 1] - offset) * scale
        inside = np.abs(values) <= scale * 2 ** (bits - 1)
        assert codes[bits - 1].max() <= 2**bits - 1
        assert np.abs(rounded - values)[inside].max() <= scale / 2 * (1 + 1e-5)


def test_a_channel_that_does_not_exist_is_a_sentence():
    with pytest.raises(SettingsError, match="channels 0 to 47, got 99"):
        _channel.channel_json(workspace(synthetic.NAME), LAYER, 99, 4)


def test_place_finds_the_layer_of_a_flat_index():
    seen = seeing.look(synthetic.NAME, "weights", "kurtosis", "absmax", 0)
    assert seeing.place(seen, 0) == (synthetic.layer_names()[0], 0)
    assert seeing.place(seen, int(seen.start[3])) == (synthetic.layer_names()[3], 0)
    assert seeing.place(seen, int(seen.start[3]) - 1) == (synthetic.layer_names()[2], 23)


def test_a_click_on_a_row_selects_its_channel_everywhere():
    class Event:
        row_value = (LAYER, 7, 12.5)

    selection, update = outliers.on_offender(Event())
    assert selection == (LAYER, 7)
    assert json.loads(update["selected"]) == {"layer": LAYER, "channel": 7}
