"""One server and one Chromium for all browser tests; the page reads a made-up model."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLAGS = [
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 150_000  # for one condition, on a machine that is busy with something else
CLICKS, CLICK_MS = 10, 5_000
START_S = 240  # for the server, on the same
ABORTED = (
    "AbortError: signal is aborted",
    "Connection errored out",
)  # words of requests of a page that is left


QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_IS_E2E_TEST": "1",  # gradio then notices a closed tab within a second
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Address of the app with a made-up model, in a process of its own."""
    folder = str(tmp_path_factory.mktemp("assets"))
    port = _free_port()
    command = [sys.executable, str(Path(__file__).with_name("serve.py")), folder, str(port)]
    with _running(command, port, tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def real_server(tmp_path_factory):
    """Address of the app as it ships, with the bundled model."""
    port = _free_port()
    with _running([sys.executable, "app.py"], port, tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def serve_with(tmp_path_factory):
    """Serves the app with a made-up model and more variables in its environment."""

    def start(**more):
        folder, port = str(tmp_path_factory.mktemp("assets")), _free_port()
        command = [sys.executable, str(Path(__file__).with_name("serve.py")), folder, str(port)]
        return _running(command, port, tmp_path_factory, **more)

    return start


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _running(command, port, tmp_path_factory, **more):
    environment = {
        **os.environ,
        **QUIET,
        **more,
        "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio")),
        "MPQDM_RUNS": str(tmp_path_factory.mktemp("runs")),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }
    address = f"http://127.0.0.1:{port}/"
    with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()


def _wait_for(address, process):
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the app did not answer at {address}; exit status {process.poll()}")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        chromium = started.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A page with everything that went wrong on it."""

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.outside, self.errors = [], []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, request):
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.outside.append(request.url)

    def _console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, query=""):
        with self.leaving():
            self.page.goto(f"{self.address}?{query}", wait_until="domcontentloaded")
            self.page.wait_for_selector(".mpq-chip:has-text('activations')")
        return self

    @contextmanager
    def leaving(self):
        """While going to another page: that what the first one had asked for is aborted is no error."""
        known = len(self.errors)
        yield
        kept = [error for error in self.errors[known:] if not any(word in error for word in ABORTED)]
        self.errors[known:] = kept

    def drawn(self, view):
        """How often a chart was drawn; waits for the first time."""
        self.page.wait_for_selector(f"#{view} [data-drawn]")
        return int(self.page.get_attribute(f"#{view} [data-drawn]", "data-drawn"))

    def data(self, view, expression):
        """Evaluate an expression over `chart`, the plotly node of a view."""
        chart = f"document.querySelector('#{view} .mpq-chart')"
        return self.page.evaluate(f"(() => {{ const chart = {chart}; return {expression}; }})()")

    def until(self, expression):
        """Wait until a JavaScript expression is true."""
        self.page.wait_for_function(expression)

    def click_cell(self, view, column, row):
        """Click the middle of a cell until the page has a selection: a redraw swallows a click."""
        from playwright.sync_api import TimeoutError as TooLate

        for _ in range(CLICKS):
            place = self.data(
                view,
                "(({left, top}, {xaxis, yaxis, _size}) => "
                f"[left + _size.l + xaxis.d2p({column}), top + _size.t + yaxis.d2p({row})])"
                "(chart.getBoundingClientRect(), chart._fullLayout)",
            )
            self.page.mouse.move(place[0] + 3, place[1])
            self.page.mouse.move(*place)
            self.page.mouse.click(*place)
            try:
                self.page.wait_for_function("window.mpqdm.selection.layer !== null", timeout=CLICK_MS)
            except TooLate:
                continue
            return
        pytest.fail(f"no selection after {CLICKS} clicks at column {column}, row {row} of {view}")


@pytest.fixture
def new_visit(browser):
    """Opens pages, each a visitor of its own."""
    contexts = []

    def make(address):
        context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        return Visit(context.new_page(), address)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def visit(server, new_visit):
    return new_visit(server)
