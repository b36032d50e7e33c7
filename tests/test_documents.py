"""The list of expectations in docs/ names tests and pictures that exist, and adds up."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "expectations.md").read_text(encoding="utf-8")
MANDATORY = {5, 6, 9, 14, 16, 17, 21, 31}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| \d", line)
]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
PICTURES = sorted(set(re.findall(r"`([\w/.-]+\.(?:png|json))`", TEXT)))


def test_every_expectation_has_a_score_that_adds_up_and_something_to_show_for_it():
    assert [int(row[0]) for row in ROWS] == list(range(1, 36))
    scores = [int(row[2]) for row in ROWS]
    assert set(scores) <= {0, 1, 2} and f"**{sum(scores)} of 70**" in TEXT
    assert all(scores[number - 1] == 2 for number in MANDATORY)
    assert {int(row[0]) for row in ROWS if row[1].startswith("**")} == MANDATORY
    assert all("`" in row[3] for row in ROWS if int(row[2]))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_named_test_exists(path, name):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", PICTURES)
def test_a_named_file_exists(path):
    assert (ROOT / path).is_file()
