"""What visitors of such a page expect and no other browser test shows: see docs/expectations.md."""

import pytest

pytestmark = pytest.mark.ui

LAYER = "mid_block.attentions.0.to_q"
ROW = 12  # of that layer in the map
BITS_OF_LAYER = f"document.querySelector('#bits-map .mpq-chart').data[0].z[{ROW}].filter(bits => bits)"


def open_tab(visit, name):
    visit.page.click(f"#tab-{name}-button")
    visit.page.wait_for_selector(f"#tab-{name}-button[aria-selected=true]")


def query(visit, name, value):
    visit.until(f"new URLSearchParams(location.search).get('{name}') === '{value}'")


def test_locks_frontier_sensitivity_one_scrubber_a_picture_of_a_chart_and_notes(visit):
    visit.open(f"tab=budget&w=3&l={LAYER}&c=7")
    page = visit.page
    visit.drawn("bits-map")
    assert "simulated" in page.inner_text("#tab-budget").lower()
    page.click("#overrides button")
    page.click("#lock")  # to 8 bits, which is what is chosen there
    visit.until(f"{BITS_OF_LAYER}.every(bits => bits === 8)")
    query(visit, "lk", f"{LAYER}:8")

    names = visit.data("by-layer", "chart.data.map(trace => trace.name)")
    assert "alone at 2 bits" in names
    assert "less error" in visit.data("by-layer", "chart.data[0].customdata[0]")
    visit.data("frontier", "chart.emit('plotly_click', {points: [{x: 2.5, y: 1, curveNumber: 0}]})")
    query(visit, "w", "2.5")

    with page.expect_download() as loading:
        page.hover("#bits-map .mpq-chart")
        page.click("#bits-map .modebar-btn[data-title^='Download']")
    assert loading.value.suggested_filename.endswith(".png")

    page.click("#keep-plan")
    page.wait_for_selector("#kept-plan :text('Kept as a run')")
    open_tab(visit, "ablation")
    row = page.locator("#ablation-runs tr:has-text('plan only')")
    visit.until("document.querySelector('#ablation-matrix [data-columns]')")  # of the first runs
    row.locator("input").check()
    page.wait_for_selector("#ablation-matrix :text('No pictures yet')")  # the choice has arrived
    page.locator("#note-text textarea, #note-text input").fill("eight bits where it matters")
    page.click("#note-write")
    page.wait_for_selector("#ablation-runs tr:has-text('plan only') small:has-text('where it matters')")

    open_tab(visit, "compare")
    page.wait_for_selector("#pair canvas >> visible=true")
    page.locator("#pair-step").focus()
    page.keyboard.press("ArrowLeft")  # from the finished picture to the last of three steps
    query(visit, "t", "2")
    open_tab(visit, "outliers")
    page.locator("#side >> text=inputs of the layers").click()
    slider = page.locator("#step input[type=number]")
    slider.wait_for()
    assert slider.input_value() == "2"
    slider.fill("1")
    slider.press("Enter")
    query(visit, "t", "1")
    open_tab(visit, "compare")
    page.wait_for_selector("#pair [data-step='1']")
    page.locator("#seed input").fill("7")
    page.locator("#seed input").press("Enter")
    query(visit, "sd", "7")
    assert visit.outside == [] and visit.errors == []
