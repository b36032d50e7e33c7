"""Many visitors at once: their sessions, and the page they open."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio.state_holder import SessionState
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse
from starlette.routing import Route

import app
from pages._kept_page import KeptPage
from pages._light_sessions import LightHolder, LightSession


@pytest.fixture
def blocks():
    with gr.Blocks() as made:
        gr.State({"a": 1})
        gr.Textbox("as built", label="Words")
    return made


def component(blocks, kind):
    return next(number for number, block in blocks.blocks.items() if isinstance(block, kind))


def test_a_light_session_has_what_gradio_s_has_but_no_copies(blocks):
    light, usual = LightSession(blocks), SessionState(blocks)
    assert vars(light).keys() == vars(usual).keys()
    assert usual.config_values and not light.config_values
    assert light.blocks_config.blocks == usual.blocks_config.blocks


def test_what_one_visitor_changes_another_does_not_see(blocks):
    words, state = component(blocks, gr.Textbox), component(blocks, gr.State)
    first, second = LightSession(blocks), LightSession(blocks)
    first[words] = changed = gr.Textbox("changed", render=False)
    first[state] = {"a": 2}
    first._update_config(words)
    first._update_value_in_config(words, "typed")
    assert first[words] is changed and first[state] == {"a": 2}
    assert second[words] is blocks.blocks[words] and second[state] == {"a": 1}
    assert not first.config_values.keys() - {state}


def test_what_sets_a_state_that_others_follow_goes_through_the_queue():
    config = app.build_app().get_config_file()
    followed = {
        target for entry in config["dependencies"] for target, event in entry["targets"] if event == "change"
    }
    states = {entry["id"] for entry in config["components"] if entry["type"] == "state"} & followed
    assert states
    past_the_queue = [entry for entry in config["dependencies"] if entry["queue"] is False]
    assert past_the_queue and not [
        entry["api_name"] for entry in past_the_queue if states & set(entry["outputs"])
    ]


def held(blocks):
    """Room for two sessions, and what waits in the queue."""
    waiting = {}
    queue = SimpleNamespace(pending_event_ids_session=waiting)
    page = SimpleNamespace(default_config=blocks.default_config, state_session_capacity=2, _queue=queue)
    holder = LightHolder()
    holder.set_blocks(page)
    return holder, waiting


def test_the_session_unused_for_longest_is_forgotten(blocks):
    holder, _ = held(blocks)
    state = component(blocks, gr.State)
    for name in ("first", "second"):
        holder[name][state] = name
    assert holder["first"][state] == "first"
    assert holder["third"][state] == {"a": 1}
    assert set(holder.session_data) == {"first", "third"}


def test_a_session_that_waits_for_its_turn_is_not_forgotten(blocks):
    holder, waiting = held(blocks)
    state = component(blocks, gr.State)
    holder["first"][state] = "a plan"
    waiting["first"] = {"its drawing"}
    for name in ("second", "third", "fourth"):
        holder[name]
    assert set(holder.session_data) == {"first", "fourth"} and holder["first"][state] == "a plan"
    waiting["fourth"] = {"another"}
    assert holder["newest"][state] == {"a": 1}  # though everybody before it waits
    del holder.session_data["newest"]
    waiting["first"].clear()
    waiting["fourth"].clear()
    holder["fourth"], holder["fifth"]
    assert set(holder.session_data) == {"fourth", "fifth"}


class Site:
    """An app that counts how often it had to make its page."""

    def __init__(self, status=200):
        self.made, self.status = 0, status
        self.app = Starlette(
            routes=[Route("/", self.page, methods=["GET", "POST"]), Route("/config", self.page)],
            middleware=[Middleware(KeptPage)],
        )

    async def page(self, request):
        self.made += 1
        return HTMLResponse(
            f"{request.url} made {self.made}", self.status, headers={"x-made": str(self.made)}
        )

    def ask(self, path, method="GET", **headers):
        async def answer():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
                return await client.request(method, path, headers=headers)

        with ThreadPoolExecutor(1) as thread:  # a browser test before this one leaves its loop running here
            return thread.submit(asyncio.run, answer()).result()


def test_the_page_is_made_once_and_the_same_for_every_link():
    site = Site()
    first, second = site.ask("/"), site.ask("/?v=1&weight_bits=3")
    assert site.made == 1 and first.content == second.content and first.headers == second.headers


@pytest.mark.parametrize(
    "headers", [{"host": "other"}, {"x-forwarded-host": "b.org"}, {"x-forwarded-proto": "https"}]
)
def test_another_address_has_another_page(headers):
    site = Site()
    site.ask("/")
    assert "made 2" in site.ask("/", **headers).text
    assert "made 2" in site.ask("/", **headers).text and "made 1" in site.ask("/").text


@pytest.mark.parametrize(("path", "method"), [("/?deep_link=x", "GET"), ("/", "POST"), ("/config", "GET")])
def test_nothing_but_the_page_is_kept(path, method):
    site = Site()
    assert "made 1" in site.ask(path, method).text and "made 2" in site.ask(path, method).text


def test_an_error_is_not_kept():
    site = Site(status=500)
    site.ask("/")
    site.status = 200
    assert site.ask("/").status_code == 200
