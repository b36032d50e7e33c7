"""Figures in the documents are those of the results files."""

import pytest

from benchmarks import _readme


@pytest.mark.parametrize("path", _readme.DOCUMENTS, ids=lambda path: path.parent.name)
def test_the_figures_are_those_of_the_results_files(path):
    text = path.read_text(encoding="utf-8")
    wanted = _readme.fill(text, _readme.table(_readme.read_results(_readme.DOCUMENTS[path])))
    assert text == wanted, "run python -m benchmarks._readme"


def test_a_missed_bar_is_shown_as_missed():
    entry = {"value": 1.5, "unit": "ratio", "bar": 1.3, "met": False}
    rendered = _readme.table({"sampling": {"figures": {"ratio": entry}, "device": "2 cores"}})
    assert "| `sampling.ratio` | 1.5 ratio | 1.3 | **no** |" in rendered
    assert rendered.endswith("Measured on: 2 cores.")
