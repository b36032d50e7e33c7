"""The page reads a made-up model in these tests."""

import gc
import warnings

import pytest
import synthetic

from pages import _precomputed, _workspace


def pytest_configure(config):
    # Building a page, gradio makes event loops that the garbage collector closes, in whichever test is next.
    for left_over in ("<socket.socket", "<function BaseEventLoop.__del__"):
        config.addinivalue_line(
            "filterwarnings",
            f"ignore:Exception ignored in. {left_over}:pytest.PytestUnraisableExceptionWarning",
        )


@pytest.fixture(scope="module", autouse=True)  # before the next file: Python's parser does not bear it
def loops_gradio_left():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


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
    for name in ("WORKSPACES", "ALLOCATIONS", "COMPARISONS", "REFERENCES"):
        getattr(_workspace, name).clear()
    return synthetic.NAME
