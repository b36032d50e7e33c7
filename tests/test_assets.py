"""Every file under assets says where it comes from."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[1] / "assets"
MANIFEST = ASSETS / "MANIFEST.json"
FIELDS = {"path", "origin", "licence", "command"}  # command: what makes the file again, or "written by hand"
FILES = sorted(p.relative_to(ASSETS).as_posix() for p in ASSETS.rglob("*") if p.is_file() and p != MANIFEST)


@pytest.fixture(scope="module")
def entries():
    return json.loads(MANIFEST.read_text(encoding="utf-8"))["files"]


def test_every_entry_is_complete(entries):
    for entry in entries:
        assert set(entry) == FIELDS, entry
        assert all(isinstance(value, str) and value.strip() for value in entry.values()), entry


def test_every_file_is_listed(entries):
    unlisted = [name for name in FILES if not any(fnmatchcase(name, entry["path"]) for entry in entries)]
    assert unlisted == []


def test_every_entry_lists_something(entries):
    stale = [
        entry["path"] for entry in entries if not any(fnmatchcase(name, entry["path"]) for name in FILES)
    ]
    assert stale == []


@pytest.mark.parametrize("name", FILES)
def test_names_are_lower_case_without_spaces(name):
    assert re.fullmatch(r"[a-z0-9._/-]+", name.removesuffix("README.md")), name
