import json

import numpy as np
import pytest

from mpqdm_core.allocation import AllocationSettings, BitPlan
from mpqdm_core.errors import DataError, LoadError, ShapeError


def plan(bits=(1, 8, 3, 3, 3), **more):
    values = {
        "layer_names": ("a", "b"),
        "layer_start": np.array([0, 2, 5]),
        "weights_per_channel": np.array([9, 4]),
        "bits": np.array(bits),
        "settings": AllocationSettings(locked={"b": 3}),
    }
    return BitPlan(**(values | more))


def test_mean_bits_weigh_channels_by_their_weights():
    assert plan().mean_bits == (9 * 1 + 9 * 8 + 3 * 4 * 3) / (18 + 12)
    assert plan().layer_mean_bits.tolist() == [4.5, 3.0]


def test_layer_bits():
    assert plan().layer_bits("a").tolist() == [1, 8]
    with pytest.raises(DataError, match="no layer 'c'; it has 2 layers"):
        plan().layer_bits("c")


def test_json_and_files_keep_everything(tmp_path):
    again = BitPlan.from_json(plan().to_json())
    assert again.content_hash == plan().content_hash
    assert again.bits.dtype == np.int8
    assert again.settings == plan().settings
    plan().save(tmp_path / "plan.json")
    assert BitPlan.load(tmp_path / "plan.json").bits.tolist() == [1, 8, 3, 3, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_json_holds_one_digit_per_channel():
    assert json.loads(plan().to_json())["layers"][0] == {"name": "a", "weights_per_channel": 9, "bits": "18"}


def test_the_hash_is_of_the_bits():
    assert plan().content_hash != plan(bits=(1, 8, 3, 3, 4)).content_hash
    assert plan().content_hash == plan(settings=AllocationSettings()).content_hash


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"version": 1}', '{"version": 1, "settings": {}, "layers": [{"bits": "9"}]}']
)
def test_damaged_text_is_one_sentence(text):
    with pytest.raises(LoadError, match="damaged or is not a bit plan"):
        BitPlan.from_json(text)


def test_bits_that_are_no_digits_are_refused():
    text = plan().to_json().replace('"18"', '"1x"')
    with pytest.raises(LoadError, match="bits must be from 1 to 8"):
        BitPlan.from_json(text)


def test_another_format_is_named():
    with pytest.raises(LoadError, match="format 2, this version reads 1"):
        BitPlan.from_json(plan().to_json().replace('"version":1', '"version":2'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LoadError, match=r"nowhere\.json"):
        BitPlan.load(tmp_path / "nowhere.json")


def test_shapes_and_values_are_checked():
    with pytest.raises(ShapeError, match=r"bits must be \(5,\), got \(2,\)"):
        plan(bits=(1, 2))
    with pytest.raises(DataError, match="bits must be from 1 to 8"):
        plan(bits=(1, 2, 3, 4, 9))
    with pytest.raises(ShapeError, match="2 layers need layer_start of 3"):
        plan(layer_start=np.array([0, 5]))


def test_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        plan().bits[0] = 2


def test_uniform_needs_no_table():
    same = BitPlan.uniform(["a", "b"], [2, 3], [9, 4], 4)
    assert same.bits.tolist() == [4] * 5
    assert same.layer_start.tolist() == [0, 2, 5]
