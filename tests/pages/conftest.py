"""The page reads a made-up model in these tests."""

import pytest
import synthetic

from pages import _precomputed, _workspace


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    synthetic.write(folder / "data")
    synthetic.write_weights(folder / "models")
    return folder


@pytest.fixture(autouse=True)
def made_up_model(shipped, monkeypatch):
    monkeypatch.setattr(_precomputed, "DATA", shipped / "data")
    monkeypatch.setattr(_precomputed, "MODELS", shipped / "models")
    for kept in (_workspace.WORKSPACES, _workspace.ALLOCATIONS, _workspace.SOLVED, _workspace.COMPARISONS):
        kept.clear()
    return synthetic.NAME
