"""Figures in the documents are those of the results files."""

import pytest

from benchmarks import _readme


@pytest.mark.parametrize("path", _readme.documents(), ids=lambda path: path.parent.name)
def test_the_figures_are_those_of_the_results_files(path):
    text = path.read_text(encoding="utf-8")
    assert text == _readme.fill(text, _readme.documents()[path]), "run python -m benchmarks._readme"


def test_a_card_shows_the_figures_of_its_own_model_alone():
    figures = {
        "fid_sprites_ldm": {"value": 8.0, "unit": "FID"},
        "fid_sprites_dit": {"value": 9.0, "unit": "FID"},
    }
    found = _readme.of_model({"zoo_quality": {"figures": figures, "device": "2 cores"}}, "sprites-dit")
    assert found["zoo_quality"]["figures"] == {"fid_sprites_dit": {"value": 9.0, "unit": "FID"}}


def test_a_missed_bar_is_shown_as_missed():
    entry = {"value": 1.5, "unit": "ratio", "bar": 1.3, "met": False}
    rendered = _readme.table({"sampling": {"figures": {"ratio": entry}, "device": "2 cores"}})
    assert "| `sampling.ratio` | 1.5 ratio | 1.3 | **no** |" in rendered
    assert rendered.endswith("Measured on: 2 cores.")
