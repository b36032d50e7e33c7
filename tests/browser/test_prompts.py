"""The bundled text-to-image model in Chromium: asked in own words, by another sampler, by a link."""

from urllib.parse import parse_qs, urlparse

import pytest

pytestmark = pytest.mark.ui

MODEL, SAID = (
    "sprites-t2i",
    ["a small red star on a blue background", "a large green cat on a cream background"],
)
COLOURS = """() => {
  const canvas = [...document.querySelectorAll('#pair .mpq-stage canvas')][0];
  const {data, width} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const count = [0, 0];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 1.6 * data[i + 1] && data[i] > 1.6 * data[i + 2]) count[0]++;
    if (data[i + 2] > 1.1 * data[i] && data[i + 2] > 1.02 * data[i + 1]) count[1]++;
  }
  return count.map((part) => part / (data.length / 4));
}"""


@pytest.fixture
def real(real_server, new_visit):
    return new_visit(real_server)


def test_words_a_sampler_and_a_link_that_keeps_both(real, new_visit, real_server):
    real.open(f"tab=compare&m={MODEL}&w=6")
    real.page.wait_for_selector("#prompts textarea")
    real.page.fill("#prompts textarea", SAID[0])
    real.page.click("#sampler input")
    real.page.click("[role=option]:has-text('Euler'):not(:has-text('ancestral')):not(:has-text('flows'))")
    real.until("new URLSearchParams(location.search).get('sm') === 'euler'")
    real.page.locator("#count input[type=number]").fill("1")
    real.page.locator("#count input[type=number]").press("Enter")
    real.page.click("#draw")
    real.page.wait_for_selector("#compare-status:has-text('Drawn and compared')")
    real.page.click("#pair [data-mode=side]")
    real.until("document.querySelectorAll('#pair .mpq-stage canvas').length === 2")
    red, blue = real.page.evaluate(COLOURS)
    assert 0.02 < red < 0.4 and blue > 0.4  # a small red thing before a blue background
    asked = parse_qs(urlparse(real.page.url).query)
    assert asked["pr"] == [SAID[0]] and asked["m"] == [MODEL]
    other = new_visit(real_server)
    other.open(urlparse(real.page.url).query)
    other.until(f"document.querySelector('#prompts textarea').value === '{SAID[0]}'")
    other.until("document.querySelector('#sampler input').value === 'Euler'")
    assert real.outside == [] and real.errors == [] and other.errors == []


def test_prompts_of_another_model_do_not_follow_to_one_of_classes(real):
    real.open(f"tab=compare&m={MODEL}&pr={SAID[1]}")
    real.page.wait_for_selector("#prompts textarea")
    real.until(f"document.querySelector('#prompts textarea').value === '{SAID[1]}'")
    real.open(f"tab=compare&pr={SAID[1]}")
    real.page.wait_for_selector("#classes")
    real.page.wait_for_selector("#prompts textarea", state="hidden")
    real.until("!new URLSearchParams(location.search).has('pr')")


def test_the_list_of_bundled_models_shows_the_one_that_a_link_opened(real):
    real.open(f"tab=model&m={MODEL}")
    real.until(f"document.querySelector('#source input').value === '{MODEL}'")
    real.page.wait_for_selector("#model-parts:has-text('CLIPTextModel')")
