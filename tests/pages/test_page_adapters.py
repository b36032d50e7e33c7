"""Fine-tuned models on the Compare page."""

from types import SimpleNamespace

import gradio as gr
import pytest

from pages import _compare_adapters as picking
from pages._distill_adapters import ADAPTERS, Offered
from pages._precomputed import DEFAULT_MODEL


@pytest.fixture(autouse=True)
def empty():
    ADAPTERS.clear()
    yield
    ADAPTERS.clear()


def offer(key, work_key, title="run"):
    ADAPTERS.put(key, Offered(key=key, title=title, work_key=work_key, changed={}, adapter=SimpleNamespace()))


def test_only_adapters_of_the_model_are_offered_latest_first_and_the_choice_is_kept():
    mine = picking.workspace(DEFAULT_MODEL).key
    offer("one", mine, "first")
    offer("other", "another model")
    offer("two", mine, "second")
    shown = picking.on_open(DEFAULT_MODEL, ["one", "gone"])
    assert shown.choices == [("second", "two"), ("first", "one")]
    assert shown.value == ["one"]


def test_what_is_no_longer_there_is_left_out():
    offer("one", "m")
    assert [found.key for found in picking.chosen_of(["gone", "one"])] == ["one"]
    assert picking.chosen_of(None) == ()


def test_a_file_that_is_no_adapter_gets_a_sentence_and_changes_nothing(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(gr.Error, match="damaged or is not an adapter"):
        picking.on_upload(str(file), DEFAULT_MODEL, [])
    assert ADAPTERS.values() == []
