"""The Compare and Model pages as plain functions; the models themselves are tested in tests/core."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import synthetic
from PIL import Image

from mpqdm_core.errors import BudgetError, LoadError, SettingsError
from mpqdm_core.progress import silent
from pages import _compare_view, _compare_work, _precomputed, _work, compare, model
from pages._model_sources import FOLDER, Asked, look, open_source
from pages._precomputed import shipped_pictures
from pages._session import workspace
from pages._workspace import Recent


def order(**changes):
    settings = {"classes": [2, 5], "seed": 10, "count": 4} | changes
    return _compare_work.read_order(workspace(synthetic.NAME), **settings)


def test_chosen_classes_take_turns_and_seeds_follow_each_other():
    assert order().labels == (2, 5, 2, 5)
    assert order().seeds == (10, 11, 12, 13)


def test_without_a_choice_all_classes_take_turns():
    assert order(classes=[], count=3).labels == (0, 1, 2)


@pytest.mark.parametrize("changes", [{"seed": None}, {"seed": "x"}, {"seed": float("nan")}, {"seed": 1.5}])
def test_a_seed_that_is_no_whole_number_is_a_sentence(changes):
    with pytest.raises(SettingsError, match="number"):
        order(**changes)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"count": 0}, {"count": 33}])
def test_numbers_outside_their_range_name_it(changes):
    with pytest.raises(BudgetError, match="must be from"):
        order(**changes)


def test_an_unknown_class_is_a_sentence():
    with pytest.raises(SettingsError, match="classes 0 to 9, got 77"):
        order(classes=[77])


def test_shipped_pictures_that_nothing_was_asked_of_are_called_by_their_seeds():
    file = _precomputed.DATA / synthetic.NAME / "samples" / "samples.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "labels": None}))
    try:
        samples = json.loads(_compare_view.shipped_pair(synthetic.NAME))["samples"]
    finally:
        file.write_text(json.dumps(document))
    assert samples[1] == {"label": "seed 1", "text": "seed 1"}


def test_the_shipped_comparison_is_shown_before_anything_is_drawn():
    drop, sampler, prompts, update, figures, steps, hint = compare.on_model(synthetic.NAME, [3])
    shown = json.loads(update.props["pair"])
    assert len(shown["samples"]) == synthetic.SAMPLES
    assert shown["columns"] == synthetic.STEPS + 1
    address, _, file = shown["reference"]["src"].partition("=")
    assert address == "gradio_api/file" and Path(file).parent in shipped_pictures()
    with Image.open(file) as sheet:
        assert sheet.size == (shown["columns"] * shown["tile"], synthetic.SAMPLES * shown["tile"])
    assert "20 dB" in figures
    assert steps.props["fig"] == "" and "at which denoising step" in hint
    assert drop.value == [3]
    assert sampler.value == "" and prompts.visible is False


def test_drawing_without_a_plan_says_where_to_make_one():
    with pytest.raises(gr.Error, match="choose one on Bit budget"):
        next(compare.on_draw(synthetic.NAME, None, [], 0, 4))


def test_a_comparison_is_shown_as_pictures_figures_and_curves():
    estimate = SimpleNamespace(value=20.0, interval=SimpleNamespace(low=19.0, high=21.5), infinite=0, n=2)
    metric = SimpleNamespace(mean=estimate, unit="dB")
    steps = SimpleNamespace(
        timesteps=np.array([900, 100]), latent_snr_db=np.array([[30.0, 32.0], [10.0, 12.0]])
    )
    found = SimpleNamespace(
        image_psnr_db=metric,
        image_ssim=None,
        image_mse=metric,
        latent_mse=metric,
        latent_snr_db=metric,
        trajectory=steps,
        notes=("No SSIM.",),
    )
    sheet = np.zeros((2 * 8, 3 * 8, 3), dtype=np.uint8)
    done = _compare_work.Compared(
        order=_compare_work.Order(labels=(0, 1), seeds=(0, 1)),
        class_names=("cat", "sun"),
        tile=8,
        timesteps=(900, 100),
        reference=_compare_work.Variant(
            key="reference", title="full precision", sheet=sheet, comparison=None
        ),
        variants=(_compare_work.Variant(key="plan", title="optimal", sheet=sheet, comparison=found),),
    )
    assert json.loads(_compare_view.pair(done))["samples"][1]["text"] == "sun, seed 1"
    assert "20 dB  [19, 21.5]" in _compare_view.metrics(done)
    assert "No SSIM." in _compare_view.metrics(done)
    assert json.loads(_compare_view.by_step(done))["data"][0]["y"] == [31.0, 11.0]


def test_the_model_page_lists_layers_and_what_is_exempt():
    _, summary, update, _, tree, exempt, *_ = model.on_show(synthetic.NAME)
    assert "960 output channels" in summary
    assert json.loads(update.props["fig"])["meta"]["rows"] == list(synthetic.layer_names())
    assert "conv_in" in tree.props["tree"] and "8-bit" in tree.props["tree"]
    assert "first layer" in exempt and "all exempt layers" in exempt


def test_a_model_nobody_has_open_any_more_is_a_sentence():
    with pytest.raises(LoadError, match="load it again"):
        workspace("gone")


def test_naming_nothing_is_a_sentence():
    with pytest.raises(SettingsError, match="choose a bundled model"):
        _work.load("  ", lambda *_: None)


def test_a_public_server_takes_no_folders(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/explorer")
    asked = Asked(kind=FOLDER, bundled="", folder="/etc", repo="", revision="")
    for refused in (lambda: look(asked, silent), lambda: open_source(asked, None, "", silent)):
        with pytest.raises(SettingsError, match="opens no folders of its own disk"):
            refused()


def test_the_bar_of_a_part_moves_within_its_share():
    seen = []
    part = _work.phase(lambda *event: seen.append(event), 1, 4, "drawing")
    part(0, 10, "start")
    part(10, 10, "end")
    assert [event[:2] for event in seen] == [(100, 400), (200, 400)]


def test_the_value_unused_for_longest_is_dropped():
    kept = Recent(2)
    kept.put("a", 1)
    kept.put("b", 2)
    kept.get("a")
    kept.put("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_two_visitors_who_ask_at_once_make_one_value():
    from threading import Barrier, Thread

    kept, made, start = Recent(4), [], Barrier(2)

    def make():
        made.append(1)
        return "model"

    def visit():
        start.wait(10)
        kept.get_or_make("key", make)

    visitors = [Thread(target=visit) for _ in range(2)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(10)
    assert len(made) == 1


def test_what_fails_is_not_kept():
    kept = Recent(4)
    with pytest.raises(ValueError, match="no"):
        kept.get_or_make("key", lambda: (_ for _ in ()).throw(ValueError("no")))
    assert kept.get_or_make("key", lambda: 5) == 5
