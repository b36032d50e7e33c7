"""From `python app.py` to a useful first page: a real browser waits for the heatmap of the first tab.

`page_s` is the wall time from the start of the process to a heatmap that is drawn on the page; `serve_s` from
the start of the process to the first answer of the server. Run with `python -m benchmarks.startup`; `--quick`
starts once instead of three times.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks._record import Figure, arguments, record

ROOT = Path(__file__).resolve().parents[1]
BAR_S = 10.0
REPEATS = 3
PATIENCE_S = 240.0
HEATMAP = "#overview [data-drawn]"
BROWSER = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def free_port() -> int:
    """A port nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_server(address: str, patience: float = PATIENCE_S) -> None:
    """Return as soon as the server answers.

    Raises:
        TimeoutError: it did not in `patience` seconds.
    """
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise TimeoutError(f"{address} did not answer within {patience:.0f} s")


def start_once(page: Page) -> tuple[float, float]:
    """Seconds to the first answer, and to the drawn heatmap."""
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for_server(address)
            served = time.perf_counter() - begin
            page.goto(address, wait_until="domcontentloaded", timeout=PATIENCE_S * 1e3)
            page.wait_for_selector(HEATMAP, timeout=PATIENCE_S * 1e3)
            return served, time.perf_counter() - begin
        finally:
            server.terminate()


def main() -> None:
    """Start the app a few times and write the record."""
    quick = arguments(__doc__).quick
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        times = [start_once(browser.new_page()) for _ in range(1 if quick else REPEATS)]
        browser.close()
    served, drawn = [first for first, _ in times], [last for _, last in times]
    page_s = statistics.median(drawn)
    record(
        "startup",
        figures={
            "page_s": Figure(page_s, "s", BAR_S, page_s < BAR_S),
            "serve_s": Figure(statistics.median(served), "s"),
        },
        repeats={"page_s": drawn, "serve_s": served},
        seed=0,
        notes=["the browser itself was running before; the first start may read files from disk"],
    )


if __name__ == "__main__":
    main()
