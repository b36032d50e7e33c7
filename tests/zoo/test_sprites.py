import numpy as np
import pytest

from mpqdm_core.errors import SettingsError
from mpqdm_core.zoo import sprites


def scene(**changes):
    base = {
        "kind": "star",
        "colour": "red",
        "size": "large",
        "background": "night",
        "radius": 0.4,
        "x": 0.5,
        "y": 0.5,
        "tilt_deg": 0.0,
        "hill": 0.2,
    }
    return sprites.SpriteAttributes(**{**base, **changes})


def test_a_scene_depends_on_its_seed_and_index_alone():
    alone, _ = sprites.batch(7, [12])
    among_others, _ = sprites.batch(7, range(10, 15))
    assert np.array_equal(alone[0], among_others[2])
    assert not np.array_equal(alone[0], sprites.batch(8, [12])[0][0])


def test_labels_and_captions_name_what_was_drawn():
    drawn = sprites.attributes(3, 5)
    assert sprites.KINDS[drawn.label] == drawn.kind
    assert scene().caption == "a large red star on a night background"


def test_every_kind_colour_size_and_background_turns_up():
    scenes = [sprites.attributes(0, index) for index in range(600)]
    assert {s.kind for s in scenes} == set(sprites.KINDS)
    assert {s.colour for s in scenes} == set(sprites.COLOURS)
    assert {s.size for s in scenes} == set(sprites.SIZES)
    assert {s.background for s in scenes} == set(sprites.BACKGROUNDS)


def test_the_corner_is_sky_and_the_object_covers_the_centre():
    picture = sprites.render(scene(tilt_deg=0.0))
    assert tuple(picture[0, 0]) == sprites.BACKGROUNDS["night"]
    centre = picture[24:30, 30:34].reshape(-1, 3).astype(int)
    assert np.abs(centre - sprites.COLOURS["red"]).max() <= 1  # above the eyes a star is its own colour


def test_a_positive_tilt_turns_counter_clockwise():
    # The rocket is white along its axis: after a counter-clockwise turn its nose points up and to the left.
    upright = sprites.render(scene(kind="rocket", tilt_deg=0.0)).astype(int)
    turned = sprites.render(scene(kind="rocket", tilt_deg=25.0)).astype(int)
    sky = np.array(sprites.BACKGROUNDS["night"])

    def nose_column(picture):
        rows = np.abs(picture - sky).sum(axis=2).max(axis=1) > 60
        first = np.flatnonzero(rows)[0]
        return np.flatnonzero(np.abs(picture[first] - sky).sum(axis=1) > 60).mean()

    assert nose_column(turned) < nose_column(upright) - 4


@pytest.mark.parametrize("kind", sprites.KINDS)
def test_objects_stay_inside_the_picture(kind):
    # The outermost pixels show sky or hill only, whatever the tilt: two colours, no third.
    for tilt in (-25.0, 0.0, 25.0):
        picture = sprites.render(scene(kind=kind, tilt_deg=tilt, radius=0.34, hill=0.12))
        assert len(np.unique(picture[0], axis=0)) == 1


def test_a_negative_index_is_refused():
    with pytest.raises(SettingsError, match="index must be 0 or more, got -1"):
        sprites.attributes(0, -1)


def test_no_indices_are_refused():
    with pytest.raises(SettingsError, match="at least one scene"):
        sprites.batch(0, [])
