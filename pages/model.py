"""Placeholder while the tab is being built."""

import gradio as gr

from pages._context import Context


def build(ctx: Context) -> None:
    gr.Markdown("model")
    for name in {"model": (), "outliers": ("side", "statistic", "step"), "compare": ("seed", "classes")}["model"]:
        ctx.linked[name] = gr.State(None)


def wire(ctx: Context, page: None) -> None:
    pass
