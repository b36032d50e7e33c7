"""Every lesson is solvable from the page alone, and leads to the explorer; the quiz counts."""

import re
from urllib.parse import parse_qsl, urlparse

import pytest

from mpqdm_core.permalink import decode
from pages._learn_text import lessons

pytestmark = pytest.mark.ui


def slide(page, name, value):
    page.locator(f".learn-widget input[id$='-{name}']").fill(str(value))


def solved(page):
    return page.locator(".learn-task").evaluate("task => task.classList.contains('is-done')")


def try_all(page, name, values):
    """Move a slider until the page says that the task is solved."""
    for value in values:
        slide(page, name, value)
        if solved(page):
            return


def rounding(page):
    try_all(page, "range", range(95, 20, -5))


def channels(page):
    page.get_by_label("one grid for each channel").check()
    try_all(page, "bits", range(2, 9))


def kurtosis(page):
    try_all(page, "size", (0.8, 0.6, 0.4, 0.2))


def grids(page):
    for bits in range(1, 7):
        slide(page, "bits", bits)
        if float(page.locator(".learn-card b").nth(2).inner_text().split()[0]) < 10:
            break
    page.get_by_role("button", name="This is where it ends").click()


def prescaling(page):
    page.get_by_label("Pre-scale the layer").check()
    try_all(page, "alpha", [tenths / 10 for tenths in range(11)])


def budget(page):
    """Trade as long as what one channel gives up costs less than what another saves."""
    for _ in range(40):
        prices = page.locator(".learn-price small").all_inner_texts()
        found = [re.search(r"\d[\d.e-]*$", text) for text in prices]
        cost = [float(m.group()) if m else float("inf") for m in found[0::2]]
        gain = [float(m.group()) if m else 0.0 for m in found[1::2]]
        giver, taker = cost.index(min(cost)), gain.index(max(gain))
        if solved(page) or giver == taker or min(cost) >= max(gain):
            return
        page.get_by_role("button", name=f"Take a bit from channel {giver}").click()
        page.get_by_role("button", name=f"Give a bit to channel {taker}").click()


def picture(page):
    try_all(page, "strong", (5, 4, 3))


def timesteps(page):
    try_all(page, "sets", range(1, 6))


def relation(page):
    page.get_by_label("Cut the relation loss off").uncheck()
    page.get_by_role("button", name="Train 200 steps").click()


def fid(page):
    for place in range(8):
        slide(page, "count_b", place)
        slide(page, "count_a", place)
        if solved(page):
            return


SOLUTIONS = {
    "rounding": rounding,
    "channels": channels,
    "kurtosis": kurtosis,
    "grids": grids,
    "prescaling": prescaling,
    "budget": budget,
    "picture": picture,
    "timesteps": timesteps,
    "relation": relation,
    "fid": fid,
}


def test_every_task_is_solved_from_the_page_alone_and_remembered(visit):
    page = visit.page
    page.goto(f"{visit.address}learn", wait_until="domcontentloaded")
    for lesson in lessons():
        page.locator(".learn-nav a").nth(lesson.number - 1).click()
        page.wait_for_selector(f"[data-lesson={lesson.id}]")
        assert page.locator(".learn-lesson h2").inner_text() == lesson.title
        assert not solved(page), f"{lesson.id} is solved before anything was done"
        query = dict(parse_qsl(urlparse(page.get_attribute(".learn-open", "href")).query))
        assert decode(query).tab == lesson.opens.tab
        SOLUTIONS[lesson.id](page)
        page.wait_for_selector(".learn-task.is-done")
        assert lesson.done in page.locator(".learn-status").inner_text()
    assert "10 of 10" in page.inner_text(".learn-progress")
    page.reload(wait_until="domcontentloaded")
    page.wait_for_selector("[data-lesson=fid]")  # the address holds the lesson, the browser the progress
    assert "10 of 10" in page.inner_text(".learn-progress")
    page.go_back()
    page.wait_for_selector("[data-lesson=relation]")
    page.click(".learn-term")
    page.wait_for_selector(".learn-note:visible")
    page.goto(f"{visit.address}learn?open=quiz", wait_until="domcontentloaded")
    for tries, answer in ((1, "[data-side=left]"), (2, "ArrowRight")):
        page.wait_for_selector("[data-side=left]:enabled")
        page.keyboard.press(answer) if answer.startswith("Arrow") else page.click(answer)
        page.wait_for_selector(f"#quiz [data-tries='{tries}']")
        page.get_by_role("button", name="Next pair").click()
    page.wait_for_selector("#quiz :text('95 % confidence')")
    page.click("#tab-teacher-button")
    page.get_by_label("Policy", exact=True).check()
    page.wait_for_function("document.querySelector('.teacher-address')?.value.includes('hide=policy')")
    assert decode(dict(parse_qsl(urlparse(page.input_value(".teacher-address")).query))).hide == ("policy",)
    assert visit.outside == [] and visit.errors == []
