"""A sweep of the bundled model in a real Chromium: filled, pinned, boxed, looked at, exported."""

import csv
from pathlib import Path

import pytest

from mpqdm_core.board.shelf import Shelf

pytestmark = pytest.mark.ui

BOARD = Path(__file__).parents[2] / "assets" / "data" / "board"
DONE = "#ablation-runs tr.is-done"
ZOOM = "getComputedStyle(document.querySelectorAll('#ablation-matrix canvas')[{}]).transform"


def test_two_cells_are_computed_pinned_boxed_and_exported(real_server, new_visit, tmp_path):
    real = new_visit(real_server)
    real.open("tab=ablation")
    page = real.page
    page.fill("#sweep-bits textarea, #sweep-bits input", "4")
    page.click("#sweep-more button")
    pictures = page.locator("#sweep-pictures input[type=number]")
    pictures.fill("2")
    pictures.press("Enter")
    page.wait_for_selector("#sweep-start:has-text('Compute 2 cells')")
    page.wait_for_selector("#sweep-estimate :text('About')")  # the cost is said first
    page.click("#sweep-start")
    page.wait_for_selector("#ablation-runs tr.is-waiting")
    page.wait_for_selector("#sweep-status:has-text('2 cells computed')")
    real.until(f"document.querySelectorAll('{DONE}').length >= 2")

    page.fill("#ablation-runs input[type=search]", "uniform pictures=2")
    real.until("document.querySelector('#ablation-runs [data-rows]').dataset.rows === '1'")
    page.click(f"{DONE} .mpq-pin")
    page.wait_for_selector("#ablation-runs tr.is-pinned")
    page.fill("#ablation-runs input[type=search]", "pictures=2")
    page.wait_for_selector(f"{DONE}:not(.is-pinned) .mpq-change")
    for title in ("uniform W4A8", "optimal W4A8"):
        page.check(f"#ablation-runs tr:has-text('{title}') input")
    real.drawn("ablation-layers")
    page.wait_for_selector("#ablation-layers-words :text('channels have other bits')")

    real.until("document.querySelector('#ablation-matrix [data-columns]')?.dataset.columns === '3'")
    page.locator("#ablation-matrix input[type=range]").fill("2")
    assert page.evaluate(ZOOM.format(0)) == page.evaluate(ZOOM.format(5)) != "none"

    real.drawn("ablation-scatter")
    page.evaluate(
        "document.querySelector('#ablation-scatter .mpq-chart').emit('plotly_selected', "
        "{range: {x: [0, 9], y: [0, 99]}, points: [{customdata: "
        "document.querySelector('#ablation-runs tr.is-pinned').dataset.run}]})"
    )
    page.wait_for_selector("#ablation-runs .mpq-count:has-text('in the box')")
    page.click("#ablation-runs :text('Show all')")

    page.wait_for_selector("#ablation-runs th:has-text('On-disk bits')")
    page.click("#ablation-cost input")
    page.click("[role=option]:has-text('On-disk bits')")
    real.until("document.querySelector('#ablation-scatter .xtitle')?.textContent === 'On-disk bits'")
    points = len(Shelf(BOARD).runs()) + 2  # every run knows its bits on disk, the shipped ones too
    real.until(f"document.querySelectorAll('#ablation-scatter .points path.point').length === {points}")

    for title in ("uniform W4A8", "optimal W4A8"):
        page.check(f"#ablation-runs tr:has-text('{title}') input")
    page.click("#export-kind input")
    page.click("[role=option]:has-text('CSV table')")
    page.click("#export")
    with page.expect_download() as loading:
        page.click("#export-download")
    with open(loading.value.path(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["title"] for row in rows} == {"uniform W4A8", "optimal W4A8"}
    assert all(float(row["psnr_db_low"]) <= float(row["psnr_db"]) for row in rows)
    assert all(
        3.9 <= float(row["nominal_bits"]) < float(row["effective_bits"]) < float(row["on_disk_bits"]) < 5
        for row in rows
    )
    assert real.outside == [] and real.errors == []
