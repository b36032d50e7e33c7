"""How the page looks and how it is served; everything comes from this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from pages._kept_page import KeptPage
from pages._light_sessions import MAX_SESSIONS
from pages._precomputed import shipped_pictures
from pages._text import ASSETS

SCRIPTS = (
    "core",
    "plot",
    "header",
    "channel",
    "compare",
    "training",
    "layers",
    "ablation",
    "ablation_matrix",
)
STYLES = ("explorer", "distill", "learn", "model", "ablation")
TEAL = gr.themes.Color(
    "#eff7f8",
    "#e1eff1",
    "#bfdfe4",
    "#93c8d0",
    "#5cb8c8",
    "#2c8ea0",
    "#17697a",
    "#155866",
    "#134a56",
    "#103d47",
    "#0a2830",
    name="teal",
)
STONE = gr.themes.Color(
    "#fbfaf7",
    "#f6f5f1",
    "#e9e6de",
    "#d5d1c6",
    "#a5b1bd",
    "#7d8894",
    "#55606e",
    "#3d4854",
    "#1f2832",
    "#1a212a",
    "#12171d",
    name="stone",
)


def plotly_script() -> Path:
    """The plotly.js that came with the plotly package; found without importing the package."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        raise RuntimeError("plotly is not installed: run `make app`, or `pip install -r requirements.txt`")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def head() -> str:
    """Script tags of the linked views; gradio loads each once, before the first view appears."""
    files = [ASSETS / "js" / f"{name}.js" for name in SCRIPTS]
    return "".join(f'<script src="gradio_api/file={path}"></script>' for path in files)


def early_head() -> str:
    """For the head of the page itself: plotly.js is long and should arrive while gradio builds the page.

    assets/js/plot.js runs it.
    """
    return f'<link id="mpq-plotly" rel="prefetch" as="script" href="gradio_api/file={plotly_script()}">'


def theme() -> gr.themes.Base:
    """Calm paper and ink; the colours themselves are variables in assets/css/explorer.css."""
    look = gr.themes.Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue=STONE,
        radius_size=gr.themes.sizes.radius_md,
        # Not 600: that file of gradio lacks letters, which the browser then takes from another font.
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono"), "ui-monospace", "monospace"],
    )
    both = {
        "body_background_fill": "var(--mpq-page)",
        "body_text_color": "var(--mpq-text)",
        "body_text_color_subdued": "var(--mpq-text-soft)",
        "background_fill_primary": "var(--mpq-card)",
        "background_fill_secondary": "var(--mpq-page)",
        "block_background_fill": "var(--mpq-card)",
        "block_border_color": "var(--mpq-line)",
        "border_color_primary": "var(--mpq-line)",
        "block_label_text_color": "var(--mpq-text-soft)",
        "block_title_text_color": "var(--mpq-text)",
        "block_info_text_color": "var(--mpq-text-soft)",
        "panel_background_fill": "var(--mpq-page)",
        "panel_border_color": "var(--mpq-line)",
        "slider_color": "var(--mpq-accent)",
        "input_background_fill": "var(--mpq-page)",
        "input_border_color": "var(--mpq-line)",
        "table_border_color": "var(--mpq-line)",
        "table_even_background_fill": "var(--mpq-card)",
        "table_odd_background_fill": "var(--mpq-page)",
        "link_text_color": "var(--mpq-accent)",
        "button_primary_background_fill": "#17697a",
        "button_primary_background_fill_hover": "#155866",
        "button_primary_text_color": "#ffffff",
        "button_secondary_background_fill": "var(--mpq-card)",
        "button_secondary_background_fill_hover": "var(--mpq-accent-soft)",
        "button_secondary_border_color": "var(--mpq-line)",
        "button_secondary_text_color": "var(--mpq-text)",
        "checkbox_label_background_fill": "var(--mpq-page)",
        "checkbox_label_background_fill_selected": "var(--mpq-accent-soft)",
        "checkbox_label_text_color": "var(--mpq-text)",
        "checkbox_label_text_color_selected": "var(--mpq-text)",
        "checkbox_label_border_color": "var(--mpq-line)",
    }
    dark = {f"{name}_dark": value for name, value in both.items()}
    once = {"block_shadow": "none", "block_title_text_weight": "600", "button_large_text_weight": "600"}
    return look.set(**both, **dark, **once)


def launch_settings() -> dict[str, Any]:
    """Keyword arguments of `launch`: no history in the browser, no monitoring, only assets are served."""
    return {
        "theme": theme(),
        "css_paths": [ASSETS / "css" / f"{name}.css" for name in STYLES],
        "head": early_head(),
        "allowed_paths": [str(folder) for folder in (ASSETS / "images", *shipped_pictures())],
        "state_session_capacity": MAX_SESSIONS,
        "app_kwargs": {"middleware": [Middleware(KeptPage)]},
        "run_history": False,
        "enable_monitoring": False,
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "max_file_size": "300mb",
        "show_error": True,
        "favicon_path": None,
    }
