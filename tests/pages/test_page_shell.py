"""The page as a whole: built without torch, every event on its own page, nothing public, pictures as PNG."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest

from app import build_app
from mpqdm_core import permalink
from mpqdm_core.permalink import PageState
from pages import shell

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    with pytest.MonkeyPatch.context():
        return build_app()


def test_building_the_page_imports_no_torch():
    code = "import app, sys; app.build_app(); print('torch' in sys.modules, 'plotly' in sys.modules)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_every_event_lives_on_one_page(demo):
    for function in demo.fns.values():
        pages = {block.page for block in [*function.inputs, *function.outputs]}
        assert pages <= {function.page}


def test_no_event_is_a_public_endpoint(demo):
    public = [function.api_name for function in demo.fns.values() if function.api_visibility == "public"]
    assert public == []


def test_long_jobs_share_one_lane(demo):
    heavy = [function for function in demo.fns.values() if function.concurrency_id == "heavy"]
    assert {function.name for function in heavy} >= {"on_load", "on_measure", "on_draw"}


def test_events_that_carry_data_all_run(demo):
    """Of those that wait, gradio's "always_last" would run one again with the data of the first."""
    carrying = [
        function
        for function in demo.fns.values()
        if function.fn is not None
        and any(
            str(parameter.annotation).endswith(("EventData", "SelectData"))
            for parameter in inspect.signature(function.fn).parameters.values()
        )
    ]
    assert len(carrying) > 8
    assert [function.name for function in carrying if function.trigger_mode == "always_last"] == []


def test_pictures_are_never_sent_as_lossy_webp(demo):
    kinds = (gr.Image, gr.ImageSlider, gr.Gallery)
    assert [
        block for block in demo.blocks.values() if isinstance(block, kinds) and block.format != "png"
    ] == []


def test_the_link_says_what_the_widgets_say(made_up_model):
    state = PageState(
        tab="budget", weight_bits=2.5, activation_bits=None, locked={"a.b": 3}, layer="a.b", channel=1
    )
    widgets = dict(zip(shell.WIDGETS, shell._widget_values(state), strict=True))
    update = shell.write_link("budget", made_up_model, ("a.b", 1), {"a.b": 3}, *widgets.values())
    query = json.loads(update["state"])["query"]
    assert query == permalink.encode(state)


def test_a_link_to_an_unknown_model_opens_the_bundled_one():
    class Request:
        query_params = {"m": "nobody", "tab": "nowhere", "w": "nan"}  # noqa: RUF012 - a stand-in

    _, tab, key, selection, *_ = shell.on_open(Request())
    assert (tab, key, selection) == ("model", "sprites-ldm", (None, None))


def test_a_half_emptied_widget_does_not_break_the_link(made_up_model):
    values = dict(zip(shell.WIDGETS, shell._widget_values(PageState()), strict=True))
    update = shell.write_link("model", made_up_model, (None, None), {}, *(values | {"seed": None}).values())
    assert json.loads(update["state"])["query"] == "v=1"
