"""The lessons as data: complete, in order, and every link decodes to the state it promises."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from mpqdm_core.errors import DataError
from mpqdm_core.permalink import HIDEABLE, TABS, PageState, decode
from pages import _guide, _learn_text, _precomputed, _quiz, _teacher, learn
from pages._learn_text import lessons, table

JS = Path(__file__).parents[2] / "assets" / "js"
SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in JS.glob("*.js")}
WIDGETS = "".join(SCRIPTS[name] for name in ("learn_rounding", "learn_layers", "learn_evidence"))


def ids(lesson):
    return lesson.id


def test_there_are_ten_lessons_in_order():
    assert [lesson.number for lesson in lessons()] == list(range(1, 11))
    assert len({lesson.id for lesson in lessons()}) == 10


@pytest.mark.parametrize("lesson", lessons(), ids=ids)
def test_a_lesson_is_complete(lesson):
    said = [lesson.title, lesson.html, lesson.task, lesson.hint, lesson.done, lesson.explore, lesson.formula]
    assert all(text.strip() for text in [*said, lesson.source, *lesson.words.values()])
    assert f"lessons.{lesson.widget} = " in WIDGETS


@pytest.mark.parametrize("lesson", lessons(), ids=ids)
def test_the_widget_has_all_its_words_and_no_others(lesson):
    start = WIDGETS.index(f"lessons.{lesson.widget} = ")
    end = WIDGETS.find("\n  lessons.", start + 1)
    quoted = set(re.findall(r'"([a-z_]+)"', WIDGETS[start : end if end > 0 else None]))
    assert set(lesson.words) <= quoted
    blanks = set(re.findall(r"\{(\w+)\}", " ".join(lesson.words.values())))
    assert all(re.search(rf"\b{name}\b", WIDGETS[start:]) for name in blanks)


@pytest.mark.parametrize("lesson", lessons(), ids=ids)
def test_a_lessons_link_decodes_to_the_state_it_promises(lesson):
    promised = replace(lesson.opens, lesson=lesson.number)
    assert decode(dict(parse_qsl(lesson.query()))) == promised
    found = decode(dict(parse_qsl(lesson.query(("a.b", 7)))))
    assert found == (replace(promised, layer="a.b", channel=7) if lesson.at_outlier else promised)


@pytest.mark.parametrize("lesson", lessons(), ids=ids)
def test_every_explained_word_is_in_the_glossary(lesson):
    terms = re.findall(r'href="term:([^"]+)"', lesson.html)
    assert set(terms) <= set(table("glossary"))


def test_the_glossary_shows_every_entry_once():
    shown = _learn_text.glossary()
    for entry in table("glossary").values():
        assert shown.count(f"## {entry['name']}\n") == 1
        assert entry["text"] in shown and entry.get("formula", "") in shown


def test_an_unknown_language_is_english_and_a_translation_may_be_partial(tmp_path, monkeypatch):
    english = _learn_text.FOLDER / "en"
    (tmp_path / "en").symlink_to(english)
    (tmp_path / "xx").mkdir()
    first = next(english.glob("01-*.md"))
    text = first.read_text(encoding="utf-8").replace('title = "What rounding does"', 'title = "Runden"')
    (tmp_path / "xx" / first.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(_learn_text, "FOLDER", tmp_path)
    titles = [lesson.title for lesson in lessons.__wrapped__("xx")]
    assert titles == ["Runden", *(lesson.title for lesson in lessons("en")[1:])]
    assert lessons.__wrapped__("../en") == lessons("en")


def test_a_damaged_lesson_is_named(tmp_path, monkeypatch):
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "01-bad.md").write_text("+++\ntitle = 3 =\n+++\n", encoding="utf-8")
    monkeypatch.setattr(_learn_text, "FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"01-bad\.md"):
        lessons.__wrapped__("en")


def test_the_first_lesson_opens_the_channel_with_the_heaviest_tail(made_up_model):
    layer, channel = learn.heaviest_channel(made_up_model)
    stats = _precomputed.Precomputed.find(made_up_model).outliers()
    place = stats.layer_names.index(layer)
    start = stats.layer_start[place]
    assert stats.weights["kurtosis"][start + channel] == stats.weights["kurtosis"].max()
    assert channel < stats.layer_start[place + 1] - start
    assert learn.heaviest_channel("nobody") is None


def test_everything_a_link_can_hide_has_a_place_and_words():
    assert set(_guide.SELECTORS) == set(HIDEABLE)
    words = table("guide")["hide"]
    assert set(HIDEABLE) <= set(words)
    source = "".join(path.read_text(encoding="utf-8") for path in (JS.parents[1] / "pages").glob("*.py"))
    for name, selectors in _guide.SELECTORS.items():
        if name not in TABS:
            assert all(f'elem_id="{selector[1:]}"' in source for selector in selectors), name


def test_the_guide_takes_nothing_from_a_link_but_what_it_knows():
    hostile = {"hide": "policy,#x{},<style>", "lesson": "99", "tour": "<script>", "lang": "../../etc"}
    guide = _guide.guide_of(hostile)
    assert (guide["hide"], guide["lesson"], guide["search"]) == (["#policy"], None, "")
    assert _guide.guide_of({"lesson": "2"})["lesson"]["title"] == lessons()[1].title
    actions = {entry["action"] for entry in table("guide")["shortcuts"]} - {"", "close"}
    assert all(f"{action}: " in SCRIPTS["guide"] or f"{action}:" in SCRIPTS["guide"] for action in actions)


def test_the_teachers_link_keeps_what_was_pasted_and_adds_the_form():
    pasted = "https://example.org/?v=1&tab=compare&lk=a.b:3&w=2.5&hide=plan"
    assert _teacher.on_start(pasted) == ("compare", "sprites-ldm", 2.5, 0, ["plan"], 0)
    update = _teacher.on_change(pasted, "budget", "sprites-ldm", 3.0, 7, ["policy", "load"], 4)
    state = decode(dict(parse_qsl(json.loads(update.props["link"])["query"])))
    wanted = PageState(tab="budget", weight_bits=3.0, seed=7, hide=("load", "policy"), lesson=4)
    assert state == replace(wanted, locked={"a.b": 3})
    assert _teacher.read("http://[half") == PageState() == _teacher.read(None)


def test_the_quiz_gets_the_finished_pictures_that_ship(made_up_model):
    pair = json.loads(_quiz.on_open().props["pair"])
    shipped = _precomputed.Precomputed.find(made_up_model)
    samples = shipped.samples()
    assert [item["key"] for item in pair["variants"]] == [item["key"] for item in samples["variants"]]
    assert len(pair["samples"]) == len(samples["seeds"])
    for item, entry in (
        (pair["reference"], samples["reference"]),
        (pair["variants"][-1], samples["variants"][-1]),
    ):
        sent = pixels(base64.b64decode(item["src"].partition(",")[2]))
        assert np.array_equal(sent, pixels(shipped.picture(entry["file"]))[:, -samples["tile"] :])


def test_damaged_pictures_leave_a_quiz_without_any(made_up_model, tmp_path, monkeypatch):
    folder = tmp_path / made_up_model
    shutil.copytree(_precomputed.DATA / made_up_model, folder)
    (folder / "samples" / "samples.json").write_text('{"tile": 16, "seeds": [0]}', encoding="utf-8")
    monkeypatch.setattr(_precomputed, "DATA", tmp_path)
    assert _quiz.on_open().props["pair"] == ""


def test_a_link_opens_the_quiz_and_an_unknown_tab_nothing():
    class Request:
        def __init__(self, **query):
            self.query_params = query

    assert learn.on_open(Request(open="quiz"))[1].selected == "quiz"
    assert learn.on_open(Request(open="#x", lang="<b>"))[1] == gr.skip()


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))
