"""Barriers that axe-core finds on every tab and lesson, light and dark, fold-outs opened.

    python -m pip install -r requirements-accessibility.txt -c constraints.txt
    python -m benchmarks.accessibility [--quick]

`serious_or_critical` counts findings of these two impacts, a rule once for each view; `moderate_or_minor` the
others, for information. The page is the one that ships, in a real Chromium; `--quick` looks at it in light
only and at three of the lessons. What was found is said in the notes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks._record import Figure, arguments, record
from benchmarks.startup import BROWSER, FLAGS, ROOT, free_port, wait_for_server

PACKAGE = "axe_playwright_python"
GRAVE = ("serious", "critical")
THEMES = ("light", "dark")
TABS = {  # what a tab shows once it is ready
    "model": "#overview [data-drawn]",
    "outliers": "#outlier-map [data-drawn]",
    "budget": "#bits-map [data-drawn]",
    "distill": "#distill-intention p",
    "compare": "#pair canvas",
    "ablation": "#ablation-runs tr.is-done",
    "export": "#export-start",
}
LESSONS, FEW = range(1, 11), (1, 3, 6)
IS_HERE = "place => document.querySelectorAll('.learn-nav a')[place].getAttribute('aria-current') === 'page'"
OTHERS = ("quiz", "glossary", "teacher")  # views of the page Learn
PATIENCE_MS = 300_000
RUN = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"
FOLDED = "main button.label-wrap:not(.open):visible"
SETTLED = """async () => {
  await document.fonts.ready;
  for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that one view breaks."""

    view: str
    rule: str
    impact: str
    places: int
    example: str  # where, and what axe says of it

    def __str__(self) -> str:
        """One line of the notes."""
        return f"{self.view}: {self.rule} ({self.impact}), {self.places} places, e.g. {self.example}"


def axe_script() -> Path | None:
    """The script of axe-core that the package carries, or None while it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).with_name("axe.min.js")


def scan(page: Page, view: str, script: Path) -> list[Finding]:
    """Everything that axe finds in what is visible now."""
    page.evaluate(SETTLED)
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(content=script.read_text(encoding="utf-8"))
    return [_finding(view, entry) for entry in page.evaluate(RUN)]


def _finding(view: str, entry: dict[str, Any]) -> Finding:
    node = entry["nodes"][0]
    words = " ".join(node["failureSummary"].split())
    return Finding(
        view=view,
        rule=entry["id"],
        impact=str(entry["impact"]),
        places=len(entry["nodes"]),
        example=f"{' '.join(map(str, node['target']))}: {words}"[:400],
    )


def views(page: Page, address: str, theme: str, quick: bool) -> Iterator[str]:
    """Open one view after the other, and name each."""
    page.goto(f"{address}?tab=model&w=3&__theme={theme}", wait_until="domcontentloaded")
    for tab, ready in TABS.items():
        page.click(f"#tab-{tab}-button")
        page.wait_for_selector(ready)
        while page.locator(FOLDED).count():
            page.locator(FOLDED).first.click()
        yield f"{tab}, {theme}"
    page.goto(f"{address}learn?__theme={theme}", wait_until="domcontentloaded")
    for lesson in FEW if quick else LESSONS:
        page.locator(".learn-nav a").nth(lesson - 1).click()
        page.wait_for_function(IS_HERE, arg=lesson - 1)
        yield f"lesson {lesson}, {theme}"
    for name in OTHERS:
        page.click(f"#tab-{name}-button")
        page.wait_for_selector(f"#tab-{name}-button[aria-selected=true]")
        yield f"{name}, {theme}"


def look(address: str, script: Path, quick: bool) -> tuple[int, list[Finding]]:
    """How many views there are, and what was found in them."""
    found, count = list[Finding](), 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        for theme in THEMES[:1] if quick else THEMES:
            page = browser.new_page(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
            page.set_default_timeout(PATIENCE_MS)
            for view in views(page, address, theme, quick):
                new = scan(page, view, script)
                count += 1
                found += new
                print(f"{view}: {len(new)} findings", file=sys.stderr, flush=True)
                for finding in new:
                    print(f"  {finding}", file=sys.stderr, flush=True)
            page.close()
        browser.close()
    return count, found


def main() -> None:
    """Serve the page, look at every view, and write the record."""
    quick = arguments(__doc__).quick
    script = axe_script()
    if script is None:
        print("axe-core is not installed: pip install -r requirements-accessibility.txt -c constraints.txt")
        return
    port = free_port()
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "MPQDM_RUNS": tempfile.mkdtemp(prefix="mpqdm-accessibility-"),  # nobody's own runs
    }
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for_server(address)
            count, found = look(address, script, quick)
        finally:
            server.terminate()
    grave = sum(finding.impact in GRAVE for finding in found)
    record(
        "accessibility",
        figures={
            "serious_or_critical": Figure(float(grave), "findings", bar=0.0, met=grave == 0),
            "moderate_or_minor": Figure(float(len(found) - grave), "findings"),
            "views": Figure(float(count), "views"),
        },
        repeats={},
        seed=0,
        notes=[f"{PACKAGE} {version(PACKAGE.replace('_', '-'))}", *map(str, found)],
    )


if __name__ == "__main__":
    main()
