"""An emptied number box reaches the handler; everything else is checked as gradio does."""

import gradio as gr
import pytest

from pages._sliders import may_be_empty


def test_an_empty_box_is_none_and_a_number_stays_within_the_range():
    slider = may_be_empty(gr.Slider(1, 8, value=4, step=0.05))
    assert slider.preprocess(None) is None
    assert slider.preprocess(2.5) == 2.5
    with pytest.raises(gr.Error, match="8"):
        slider.preprocess(9)
