"""What a visitor does, in a real Chromium: look, drag, click, compare. No fixed waits."""

from urllib.parse import parse_qs, urlparse

import pytest

pytestmark = pytest.mark.ui


def first_row(visit):
    return visit.data("bits-map", "JSON.stringify(chart.data[0].z.map(row => row.slice(0, 8)))")


def open_tab(visit, name):
    visit.page.click(f"[role=tab]:has-text('{name}')")


def set_bits(visit, value):
    box = visit.page.locator("#weight-bits input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def test_the_first_page_is_useful_and_nothing_leaves_the_machine(visit):
    visit.open()
    assert visit.drawn("overview") >= 1
    visit.page.locator("#layers input").fill("conv1 down_blocks.0")
    visit.page.wait_for_selector("#layers >> text=down_blocks.0.resnets.0.conv1 >> visible=true")
    for name in ("Outliers", "Bit budget", "Compare"):
        open_tab(visit, name)
    visit.page.wait_for_selector("#pair canvas >> visible=true")
    assert visit.outside == []
    assert visit.errors == []


def test_dragging_the_slider_changes_the_map_and_the_link(visit):
    visit.open("tab=budget")
    visit.drawn("bits-map")
    before = first_row(visit)
    handle = visit.page.locator("#weight-bits input[type=range]").bounding_box()
    middle = handle["y"] + handle["height"] / 2
    visit.page.mouse.move(handle["x"] + handle["width"] * 0.43, middle)
    visit.page.mouse.down()
    visit.page.mouse.move(handle["x"] + handle["width"] * 0.15, middle, steps=8)
    visit.page.mouse.up()
    rows = "document.querySelector('#bits-map .mpq-chart').data[0].z.map(row => row.slice(0, 8))"
    visit.until(f"JSON.stringify({rows}) !== {before!r}")
    visit.until("new URLSearchParams(location.search).get('w') < 3")
    assert visit.errors == []


def test_the_zoom_survives_another_budget(visit):
    visit.open("tab=budget")
    count = visit.drawn("bits-map")
    visit.data("bits-map", "(window.moduleName || window.Plotly).relayout(chart, {'xaxis.range': [2, 9]})")
    set_bits(visit, 2.5)
    visit.until(f"Number(document.querySelector('#bits-map [data-drawn]').dataset.drawn) > {count}")
    assert visit.data("bits-map", "chart._fullLayout.xaxis.range.map(Math.round)") == [2, 9]
    assert visit.data("bits-map", "chart.data[0].texttemplate") == "%{z}"


def test_a_clicked_cell_opens_its_channel_and_its_bits_can_be_tried(visit):
    visit.open("tab=outliers")
    visit.drawn("outlier-map")
    visit.click_cell("outlier-map", 5, 2)
    visit.page.wait_for_selector("#channel h3:has-text('channel 5')")
    facts = visit.page.inner_text("#channel .mpq-facts")
    visit.page.locator("#channel input[type=range]").focus()
    visit.page.keyboard.press("Home")
    visit.until(f"document.querySelector('#channel .mpq-facts').textContent !== {facts!r}")
    assert visit.page.inner_text("#channel .mpq-facts").startswith("2 levels")
    assert visit.page.locator("#channel tbody tr").count() == 24  # all weights of this small channel
    visit.until("new URLSearchParams(location.search).get('c') === '5'")
    assert visit.errors == []


def test_colour_bars_and_clips_hold_when_the_link_changes(visit):
    visit.open("tab=outliers&w=3")
    visit.drawn("outlier-map")
    references = visit.data(
        "outlier-map",
        """[...chart.querySelectorAll('*')].flatMap(node => [node.getAttribute('clip-path'), node.style.fill])
           .filter(text => text && text.includes('url('))""",
    )
    assert any("#g" in text for text in references)  # the gradient of the colour bar
    assert all("url(#" in text.replace('"', "").replace("'", "") for text in references), references


def test_the_selection_is_shared_by_all_maps(visit):
    visit.open("tab=budget&l=mid_block.attentions.0.to_q&c=7")
    visit.drawn("bits-map")
    row = visit.data("bits-map", "JSON.parse('[' + chart.layout.shapes.map(s => s.y0).join(',') + ']')")
    assert 11.5 in row  # the layer's row is 12: its outline starts half a row above
    open_tab(visit, "Outliers")
    visit.page.wait_for_selector("#channel h3:has-text('mid_block.attentions.0.to_q')")


def test_arrow_keys_move_the_selection(visit):
    visit.open("tab=budget&l=mid_block.attentions.0.to_q&c=7")
    visit.drawn("bits-map")
    visit.page.focus("#bits-map .mpq-view")
    visit.page.keyboard.press("ArrowRight")
    visit.until("new URLSearchParams(location.search).get('c') === '8'")


def test_an_impossible_budget_is_a_sentence_and_keeps_the_map(visit):
    visit.open("tab=budget&b=23&w=2.5")
    visit.drawn("bits-map")
    before = first_row(visit)
    set_bits(visit, 6)
    visit.page.wait_for_selector("#budget-notice .mpq-warning:has-text('3')")
    assert first_row(visit) == before


def test_a_link_restores_what_it_says(visit):
    link = "v=1&tab=budget&w=2.75&a=4&p=kurtosis&e=none&s=layer&b=1234"
    visit.open(link)
    visit.drawn("bits-map")
    assert visit.page.input_value("#weight-bits input[type=number]") == "2.75"
    assert "kurtosis" in visit.page.input_value("#policy input")
    visit.page.wait_for_selector(".mpq-chip:has-text('4 bits')")
    asked, shown = parse_qs(link), parse_qs(urlparse(visit.page.url).query)
    assert {key: shown.get(key) for key in asked} == asked


def test_two_pictures_can_be_compared_in_every_way(visit):
    visit.open("tab=compare")
    visit.page.wait_for_selector("#pair canvas >> visible=true")
    stage = "document.querySelector('#pair .mpq-stage')"
    for mode, pictures in (("side", 2), ("difference", 2), ("flicker", 1), ("divider", 2)):
        visit.page.click(f"#pair [data-mode={mode}]")
        visit.until(f"{stage}.querySelectorAll('canvas').length === {pictures}")
    status = visit.page.inner_text("#pair [aria-live]")
    visit.page.locator("#pair-step").focus()
    visit.page.keyboard.press("ArrowLeft")
    visit.until(f"document.querySelector('#pair [aria-live]').textContent !== {status!r}")
    visit.page.focus("#pair .mpq-stage")
    caption = "document.querySelector('#pair figcaption').textContent"
    visit.page.keyboard.press("f")
    first = visit.page.evaluate(caption)
    visit.page.keyboard.press("f")
    assert visit.page.evaluate(caption) != first
    assert visit.errors == []


@pytest.mark.parametrize("tab", ["model", "outliers", "budget", "compare"])
def test_a_narrow_screen_does_not_scroll_sideways(visit, tab):
    visit.page.set_viewport_size({"width": 375, "height": 800})
    visit.open(f"tab={tab}")
    visit.page.wait_for_selector(f"#tab-{tab}-button[aria-selected=true]")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 375


def test_charts_follow_the_theme(visit):
    visit.open("tab=budget&__theme=light")
    count = visit.drawn("bits-map")
    light = visit.data("bits-map", "chart._fullLayout.font.color")
    visit.page.click("button:has-text('Light / dark')")
    visit.until(f"Number(document.querySelector('#bits-map [data-drawn]').dataset.drawn) > {count}")
    assert visit.data("bits-map", "chart._fullLayout.font.color") != light


def test_a_wrong_folder_is_a_sentence(visit):
    visit.open()
    visit.page.click("#source-kind >> text=Folder on this machine")
    visit.page.locator("#folder textarea, #folder input").fill("/nowhere/at/all")
    visit.page.click("#load")
    visit.page.wait_for_selector("[data-testid=toast-body]:has-text('/nowhere/at/all')")
