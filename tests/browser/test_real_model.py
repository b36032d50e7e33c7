"""The bundled model in a real Chromium: draw, stop, share the server, and be told what is wrong."""

from urllib.parse import parse_qs, urlparse

import pytest

pytestmark = pytest.mark.ui

PIXELS = """() => {
  const pixels = (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const [left, right] = [...document.querySelectorAll('#pair .mpq-stage canvas')].map(pixels);
  return [new Set(left).size > 20, left.some((value, place) => value !== right[place])];
}"""
PAIR = "document.querySelector('#pair .mpq-stage')"


@pytest.fixture
def real(real_server, new_visit):
    return new_visit(real_server)


def goto(visit, query):
    """Open a page that has no plan yet, which `Visit.open` would wait for."""
    visit.page.goto(f"{visit.address}?{query}", wait_until="domcontentloaded")


def set_number(visit, box, value):
    field = visit.page.locator(f"#{box} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def draw(visit, count):
    set_number(visit, "count", count)
    visit.page.click("#draw")


def test_drawing_shows_two_pictures_of_ones_own_plan(real):
    real.open("tab=compare&w=2.5&k=3")
    real.page.wait_for_selector("#steps-hint:has-text('Draw the pictures')")
    draw(real, 1)
    real.page.wait_for_selector("#compare-status:has-text('Drawn and compared')")
    real.page.wait_for_selector("#metrics :text('optimal, 2.50 bits')")
    real.page.click("#pair [data-mode=side]")
    real.until(f"{PAIR}.querySelectorAll('canvas').length === 2")
    left_is_not_blank, differ = real.page.evaluate(PIXELS)
    assert left_is_not_blank and differ
    real.drawn("steps")
    assert real.page.inner_text("#steps-hint").strip() == ""
    assert real.outside == [] and real.errors == []


def test_a_stopped_drawing_leaves_the_page_ready_for_another(real):
    real.open("tab=compare&w=3.5")
    draw(real, 32)
    real.page.click("#stop-draw")
    real.page.wait_for_selector("#compare-status:has-text('Stopped')")
    real.page.wait_for_selector("#stop-draw", state="hidden")
    draw(real, 1)
    real.page.wait_for_selector("#compare-status:has-text('Drawn and compared')")
    real.page.wait_for_selector("#metrics :text('optimal, 3.50 bits')")
    assert real.errors == []


def test_two_tabs_keep_their_own_budgets(real_server, new_visit):
    first, second = new_visit(real_server), new_visit(real_server)
    for visit, bits in ((first, 2), (second, 6)):
        visit.open("tab=budget")
        visit.drawn("bits-map")
        set_number(visit, "weight-bits", bits)
    first.page.wait_for_selector(".mpq-chip:has-text('2.00 bits')")
    second.page.wait_for_selector(".mpq-chip:has-text('6.00 bits')")
    first.page.locator("#scope >> text=each layer").click()  # solved again: with its own slider
    first.until("new URLSearchParams(location.search).get('s') === 'layer'")
    first.page.wait_for_selector("#budget-summary :text('asked for 2')")
    assert second.page.input_value("#weight-bits input[type=number]") == "6"
    assert parse_qs(urlparse(second.page.url).query)["w"] == ["6"]
    assert "asked for 6" in second.page.inner_text("#budget-summary")


def test_a_tab_closed_during_calibration_does_not_block_the_next_visitor(real_server, new_visit):
    first, second = new_visit(real_server), new_visit(real_server)
    first.open()
    first.page.click("text=Measure again")
    set_number(first, "calibration-samples", 128)
    first.page.click("#measure")
    first.page.wait_for_selector("#model-status [role=progressbar][aria-label*='calibrating']")
    first.page.close()
    second.open("tab=compare&w=4.5")
    draw(second, 1)
    second.page.wait_for_selector("#compare-status:has-text('Drawn and compared')")


def test_an_emptied_box_is_a_sentence_and_keeps_the_map(real):
    real.open("tab=budget")
    real.drawn("bits-map")
    set_number(real, "weight-bits", "")
    real.page.wait_for_selector("#budget-notice .mpq-warning:has-text('must be a number from 1 to 8')")
    set_number(real, "weight-bits", 3)
    real.page.wait_for_selector("#budget-summary :text('asked for 3')")


def test_a_seed_that_is_no_number_is_a_sentence(real):
    real.open("tab=compare")
    box = real.page.locator("#seed input[type=number]")
    box.click()
    real.page.keyboard.press("Control+a")
    real.page.keyboard.type("e")  # the one letter that a number box takes
    real.page.keyboard.press("Tab")
    real.page.click("#draw")
    real.page.wait_for_selector("[data-testid=toast-body]:has-text('the first seed must be a number')")


def test_another_grid_says_that_it_was_not_measured_and_offers_to(real):
    goto(real, "tab=budget&g=affine")
    real.page.wait_for_selector("#budget-notice :text('was measured with mid-rise grid')")
    real.page.wait_for_selector("#measure-missing >> visible=true")
    real.page.click("text=More settings")
    real.page.click("#grid label:has-text('mid-rise')")
    real.page.wait_for_selector("#measure-missing", state="hidden")
    real.drawn("bits-map")


def test_a_layer_put_into_the_budget_is_priced_while_one_waits(real):
    goto(real, "tab=budget&ex=conv_out:b")
    real.page.wait_for_selector("#budget-notice :text('conv_out')")
    real.page.click("#measure-missing")
    real.page.wait_for_selector("#missing-status:has-text('Measured in')")
    real.page.wait_for_selector("#budget-summary :text('chosen under More settings')")
    real.drawn("bits-map")
    real.until("new URLSearchParams(location.search).get('ex') === 'conv_out:b'")
    rows = real.data("bits-map", "chart.data[0].z.length")
    goto(real, "tab=budget")
    real.until(f"document.querySelector('#bits-map .mpq-chart')?.data?.[0].z.length === {rows} - 1")
