"""Sliders whose number box may be emptied: gradio's own check of the range fails on an empty box."""

from __future__ import annotations

from typing import Any

import gradio as gr


def may_be_empty(slider: gr.Slider) -> gr.Slider:
    """Hand an empty box on as None, so that the handler can say what is missing; returns the slider."""
    check = slider.preprocess

    def preprocess(payload: Any) -> Any:
        return None if payload is None else check(payload)

    slider.preprocess = preprocess  # type: ignore[method-assign]
    return slider
