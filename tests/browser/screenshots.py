"""Take the pictures of every tab from the running page: `python -m tests.browser.screenshots [folder]`.

The page shows the bundled model with its precomputed results. Light at full width goes into the README; a
folder named on the command line also gets dark and phone width, for looking at.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import FLAGS, QUIET

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "assets" / "images"
TABS = {
    "model": "overview",
    "outliers": "outlier-map",
    "budget": "bits-map",
    "compare": "pair",
    "ablation": "ablation-scatter",
}
FORMS = {"distill": "distill-start", "export": "export-start"}  # without a chart before something was done
LESSON = 3  # of the page Learn
LOOKS = {"": ("light", 1400), "-dark": ("dark", 1400), "-phone": ("light", 375)}
SETTLED = """async () => {
  await document.fonts.ready;
  for (let frame = 0; frame < 30; frame++) await new Promise(requestAnimationFrame);
}"""
PATIENCE_MS = 120_000
START_S = 120


def serve():
    """Start the app on a free port; return the process and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        **QUIET,
        "MPQDM_RUNS": tempfile.mkdtemp(prefix="mpqdm-screenshots-"),  # no picture of anybody's own runs
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    address = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return process, address
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    process.terminate()
    sys.exit("the app did not answer")


def take(browser, address, folder, looks):
    """Open every tab in every look and save what is there once its chart is drawn."""
    for suffix, (theme, width) in looks.items():
        page = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE_MS)
        for tab, chart in TABS.items():
            page.goto(f"{address}?tab={tab}&w=3&__theme={theme}", wait_until="domcontentloaded")
            page.wait_for_selector(f"#{chart} [data-drawn], #{chart} canvas")
            settle(page)
            page.screenshot(path=folder / f"{tab}{suffix}.png", full_page=True)
        for tab, button in FORMS.items():
            page.goto(f"{address}?tab={tab}&w=3&__theme={theme}", wait_until="domcontentloaded")
            page.wait_for_selector(f"#{button}")
            settle(page)
            page.screenshot(path=folder / f"{tab}{suffix}.png", full_page=True)
        page.goto(f"{address}learn?lesson={LESSON}&__theme={theme}", wait_until="domcontentloaded")
        page.wait_for_selector(".learn-task")
        settle(page)
        page.screenshot(path=folder / f"learn{suffix}.png", full_page=True)
        page.close()


def settle(page):
    """Wait until nothing is loading and fonts and layout are done."""
    page.wait_for_selector(".progress-text, .mpq-busy", state="detached")
    page.evaluate(SETTLED)


def main():
    """Serve, look, save."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    process, address = serve()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            take(browser, address, folder, LOOKS if len(sys.argv) > 1 else {"": LOOKS[""]})
            browser.close()
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
