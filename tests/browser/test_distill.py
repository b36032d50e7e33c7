"""Fine-tuning the bundled model in a real Chromium: watched, found again in another tab, stopped."""

import pytest

pytestmark = pytest.mark.ui

CURVE = "document.querySelector('#distill-losses-curve .mpq-chart')"
POINTS = f"({CURVE}?.data?.[0]?.x.length ?? 0)"


@pytest.fixture
def real(real_server, new_visit):
    return new_visit(real_server)


def open_distill(visit):
    visit.page.click("[role=tab]:has-text('Distill')")
    visit.page.wait_for_selector("#distill-intention :text('weight bits')")


def set_number(visit, name, value):
    field = visit.page.locator(f"#distill-{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def choose(visit, steps):
    """A custom run of two pictures and one timestep a step: the least there is to wait for."""
    visit.page.click("#distill-preset >> text=Custom")
    set_number(visit, "pictures", 2)
    set_number(visit, "window", 1)
    set_number(visit, "steps", steps)
    visit.page.wait_for_selector(f"#distill-duration :text('{steps} steps with 2 pictures and 1 timesteps')")


def test_a_run_is_watched_found_again_in_another_tab_and_stopped(real):
    real.open("w=3&a=4")
    open_distill(real)
    choose(real, 2000)
    real.page.click("#distill-start")
    real.until(f"{POINTS} >= 1")
    real.page.evaluate(f"{CURVE}.dataset.same = 'yes'")
    real.until(f"{POINTS} >= 3")
    assert real.page.evaluate(f"{CURVE}.dataset.same") == "yes"  # drawn into, not replaced
    real.page.wait_for_selector("#distill-previews [data-moments] img[alt^='Fine-tuned']")
    real.page.wait_for_selector("#distill-doctor :text('Gradient norm')")
    again = type(real)(real.page.context.new_page(), real.address)
    again.open()  # with another bit budget: the run keeps its own
    open_distill(again)
    again.until(f"{POINTS} >= 3")
    again.page.click("#distill-stop")
    for visit in (again, real):
        visit.page.wait_for_selector("#distill-status :text('the adapter so far can be used')")
        visit.page.wait_for_selector("#distill-result :text('MiB')")
    with real.page.expect_download() as loading:
        real.page.click("#distill-download")
    with open(loading.value.path(), "rb") as file:
        assert b"/low_rank_a" in file.read(100_000)  # the names of the tensors come first
    assert real.page.is_visible("#distill-resume")
    for visit in (again, real):
        assert visit.errors == [] and visit.outside == []


def test_ten_steps_come_to_their_end_and_the_scrubber_goes_back_to_the_start(real):
    real.open("w=2.5&a=4")
    open_distill(real)
    choose(real, 10)
    real.page.click("#distill-start")
    real.page.wait_for_selector("#distill-status :text('Finished')")
    real.until(f"{POINTS} === 10")
    real.page.wait_for_selector("#distill-previews [data-step='10']")
    scrubber = real.page.locator("#distill-previews input[type=range]")
    scrubber.focus()
    scrubber.press("Home")
    real.page.wait_for_selector("#distill-previews [data-step='0']")
    real.page.wait_for_selector("#distill-result :text('held-out pictures')")
    assert real.page.is_visible("#distill-start") and not real.page.is_visible("#distill-resume")
