"""One file, one idea: no Python file grows past 300 lines."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 300  # lines
FOLDERS = ("mpqdm_core", "pages", "benchmarks", "tests")
FILES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_one_idea(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LIMIT, f"{lines} lines: split it by idea"


def test_there_are_files_to_measure():
    assert Path(__file__) in FILES and len(FILES) > 20
