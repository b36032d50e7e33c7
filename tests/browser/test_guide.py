"""A teacher's link, keys, the help sheet and the tour on the explorer."""

import pytest

pytestmark = pytest.mark.ui


def selected(visit, tab):
    visit.page.wait_for_selector(f"#tab-{tab}-button[aria-selected=true]")


def test_a_teachers_link_hides_controls_and_keys_and_tour_lead_through_the_page(visit):
    visit.open("tab=budget&lesson=3&hide=policy,distill,nonsense")
    page = visit.page
    page.wait_for_selector(".guide-banner:has-text('Lesson 3')")
    page.wait_for_selector("#weight-bits")
    assert not page.is_visible("#policy") and not page.is_visible("#tab-distill-button")
    assert page.is_visible("#scope")
    assert page.locator(".guide-card").count() == 0  # no tour over a teacher's view, nor for a test
    page.locator("#weight-bits input[type=number]").fill("3")
    page.locator("#weight-bits input[type=number]").press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('w') === '3'")
    assert "hide=policy" in page.url and "lesson=3" in page.url  # what the link said stays in it
    page.locator("#weight-bits input[type=number]").press("?")
    assert page.locator("dialog").count() == 0  # typing in a field is typing
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]:has-text('Copy a link')")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("2")
    selected(visit, "outliers")
    page.keyboard.press("]")
    selected(visit, "budget")
    page.keyboard.press("]")
    selected(visit, "compare")  # the hidden tab is skipped
    page.keyboard.press("c")
    page.wait_for_function("document.querySelector('[data-does=copy]').textContent === 'Copied'")
    assert "lesson=3" in page.evaluate("navigator.clipboard.readText()")
    with visit.leaving():
        page.click(".guide-banner a")
        page.wait_for_selector("[data-lesson=kurtosis]")
    visit.open("tour=1")
    for number in range(1, 7):
        page.wait_for_selector(f".guide-card small:has-text('{number} of 6')")
        page.wait_for_selector(".guide-target")
        page.locator(".guide-card button").last.click()
    page.wait_for_selector(".guide-card", state="detached")
    assert page.evaluate("JSON.parse(localStorage.getItem('mpqdm-guide')).toured") is True
    assert visit.outside == [] and visit.errors == []
