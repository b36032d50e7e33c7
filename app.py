"""The MPQ-DM Explorer: `python app.py` serves it on port 7860."""

from __future__ import annotations

import gc
import os

# Before gradio and huggingface_hub are imported: both read these once, at import.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from pages._quick_start import no_collecting  # isort: split

import gradio as gr

from mpqdm_core.freed_memory import share_arenas
from mpqdm_core.thread_priority import take_turns_often
from pages import learn, shell
from pages._light_sessions import use_light_sessions
from pages._theme import launch_settings
from pages._warm import warm_up


def build_app() -> gr.Blocks:
    """The whole page; loads no model and imports no torch."""
    with (
        no_collecting(),
        gr.Blocks(
            title="MPQ-DM Explorer", fill_width=True, analytics_enabled=False, delete_cache=(600, 3600)
        ) as demo,
    ):
        demo.queue(max_size=64)  # now: gradio makes its server anew, which takes longer once there are tabs
        shell.build()
    learn.build(demo)
    use_light_sessions()
    return demo


def main() -> None:
    """Serve the page; heavy libraries are imported in the background, after the first page."""
    share_arenas()
    demo = build_app()
    take_turns_often()
    warm_up()
    gc.freeze()  # the page itself stays for good
    demo.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        server_port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        **launch_settings(),
    )


if __name__ == "__main__":
    main()
