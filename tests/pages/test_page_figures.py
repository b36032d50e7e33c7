"""Figures are plain dictionaries: what is in them can be checked cell by cell."""

import base64

import numpy as np
import pytest

from pages._bridge import dumps
from pages._figures_budget import search_figure
from pages._figures_map import MAX_COLUMNS, bits_map, grid, value_map
from pages._layers import group, short, spans

LAYERS = ("down_blocks.0.resnets.0.conv1", "mid_block.attentions.0.to_out.0", "conv_in")


def floats(packed):
    rows, columns = map(int, packed["shape"].split(","))
    return np.frombuffer(base64.b64decode(packed["bdata"]), np.float32).reshape(rows, columns)


def test_channels_fill_their_layer_from_the_left():
    matrix, pools = grid(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 3]))
    assert pools.tolist() == [1, 1]
    np.testing.assert_array_equal(matrix, [[1, np.nan], [2, 3]])


def test_wide_layers_are_pooled_by_their_largest_value():
    width = 2 * MAX_COLUMNS
    matrix, pools = grid(np.arange(width + 2.0), np.array([0, width, width + 2]))
    assert pools.tolist() == [2, 1]
    assert matrix[0, :3].tolist() == [1, 3, 5]
    assert matrix[1, :2].tolist() == [width, width + 1]  # a narrow layer keeps every channel
    assert np.isnan(matrix[1, 2:]).all()  # a gap, not the lowest colour


def test_one_wide_layer_does_not_make_the_others_a_sliver():
    start = np.arange(0, 20 * 8 + 1, 8)
    values = np.arange(20 * 8 + 70.0)
    values[-1] = np.nan
    matrix, pools = grid(values, np.append(start, 20 * 8 + 70))
    assert pools.tolist() == [1] * 20 + [9]
    assert matrix.shape == (21, 8)
    assert matrix[20].tolist() == [168, 177, 186, 195, 204, 213, 222, 228]  # its last value is no number


def test_the_bits_map_holds_one_byte_a_cell_and_zero_for_none():
    figure = bits_map(LAYERS[:2], np.array([0, 1, 3]), np.array([4, 2, 8]), np.array([9, 9]))
    cells = figure["data"][0]["cells"]
    assert list(base64.b64decode(cells["b64"])) == [4, 0, 2, 8]
    assert figure["data"][1]["x"] == [4.0, 5.0]
    assert figure["meta"]["sizes"] == [1, 2]


def test_values_are_coloured_by_their_logarithm_and_shown_as_they_are():
    values = np.array([1.0, 10.0, 1000.0])
    heat = value_map(LAYERS[:2], np.array([0, 1, 3]), values, name="kurtosis")["data"][0]
    np.testing.assert_allclose(floats(heat["z"])[1], [1, 3])
    np.testing.assert_allclose(floats(heat["customdata"])[1], [10, 1000])


@pytest.mark.parametrize(
    ("peaks", "ticks"),
    [
        ([4.0, 25.0], ["5", "10", "20"]),
        ([2.0, 45.0], ["3", "10", "30"]),
        ([0.02, 3000.0], ["0.1", "10", "1000"]),
    ],
)
def test_the_narrow_side_axis_has_few_round_numbers(peaks, ticks):
    figure = value_map(LAYERS[:2], np.array([0, 1, 2]), np.array(peaks), name="kurtosis")
    assert figure["layout"]["xaxis2"]["ticktext"] == ticks


def test_channels_without_a_value_are_gaps():
    heat = value_map(LAYERS[:1], np.array([0, 3]), np.array([2.0, np.nan, 4.0]), name="x", logarithmic=False)
    assert np.isnan(floats(heat["data"][0]["z"])[0, 1])


@pytest.mark.parametrize("values", [np.zeros(3), np.full(3, np.nan), np.array([5.0, 5.0, 5.0])])
def test_degenerate_statistics_still_make_a_map(values):
    figure = value_map(LAYERS[:1], np.array([0, 3]), values, name="x")
    assert "NaN" not in dumps(figure)


def test_sorting_orders_each_layer_by_itself():
    heat = value_map(
        LAYERS[:2],
        np.array([0, 2, 4]),
        np.array([1.0, 3.0, 9.0, 2.0]),
        name="x",
        logarithmic=False,
        sort=True,
    )
    assert floats(heat["data"][0]["z"]).tolist() == [[3, 1], [9, 2]]


def test_the_search_curve_marks_its_smallest_error():
    bars = search_figure("mid_block.resnets.0.conv1", [3.0, 1.0, 2.0, float("nan")])["data"][0]
    assert [text.startswith("✓") for text in bars["text"]] == [False, True, False, False]


def test_layers_have_short_names_and_groups():
    assert [group(layer) for layer in LAYERS] == ["down 0", "mid", "conv in"]
    assert short(LAYERS[0]) == "down 0 · res 0 · conv1"
    assert short(LAYERS[1]) == "mid · attn 0 · to_out"
    assert spans(LAYERS) == [("down 0", 0, 0), ("mid", 1, 1), ("conv in", 2, 2)]
