import random
from dataclasses import replace

import pytest

from mpqdm_core.errors import SettingsError
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.captions import asked_for, paraphrase, vocabulary

SCENES = [sprites.attributes(11, index) for index in range(200)]


def test_a_blue_background_may_be_sky_or_night():
    assert asked_for("a small red star on a blue background") == {
        "kind": ("star",),
        "size": ("small",),
        "colour": ("red",),
        "background": ("sky", "night"),
    }


def test_every_paraphrase_is_true_of_its_scene():
    for number, scene in enumerate(SCENES):
        for attribute, values in asked_for(paraphrase(scene, random.Random(number))).items():
            assert getattr(scene, attribute) in values


def test_the_full_caption_names_exactly_its_scene():
    for scene in SCENES:
        named = {name: (getattr(scene, name),) for name in ("kind", "size", "colour", "background")}
        assert asked_for(scene.caption) == named


def test_paraphrases_leave_things_out_but_never_the_kind():
    chance = random.Random(0)
    named = [asked_for(paraphrase(scene, chance)) for scene in SCENES]
    for attribute in ("size", "colour", "background"):
        assert 0.7 < sum(attribute in asked for asked in named) / len(named) < 0.9
    assert all("kind" in asked for asked in named)


def test_the_article_fits_the_word_after_it():
    scene = replace(SCENES[0], kind="fish", colour="orange", size="small")
    said = {paraphrase(scene, random.Random(number)).split(" on ")[0] for number in range(60)}
    assert said == {"a fish", "an orange fish", "a small fish", "a small orange fish"}


def test_every_word_of_a_caption_is_in_the_vocabulary():
    words = {word for scene in SCENES for word in paraphrase(scene, random.Random(1)).split()}
    assert words <= set(vocabulary())
    assert set(" ".join(scene.caption for scene in SCENES).split()) <= set(vocabulary())


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a shiny star", "'shiny' in 'a shiny star' is no word"),
        ("a small red", "a caption must name one of star, heart"),
        ("a star on a plaid background", "'plaid' in"),
        ("", "a caption must name one of"),
    ],
)
def test_what_no_caption_says_is_refused(caption, said):
    with pytest.raises(SettingsError, match=said):
        asked_for(caption)
