"""Where a GPU is lent by the minute; the host's package is played by a module of a few lines."""

import importlib
import sys
from types import SimpleNamespace

import gradio as gr
import pytest

from mpqdm_core.errors import MpqdmError
from pages import _zero_gpu


@pytest.fixture
def lender(monkeypatch):
    """The page as such a host sees it; what it lent, in seconds."""
    lent = []

    def gpu(duration):
        lent.append(duration)
        return lambda function: function

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    yield lent, importlib.reload(_zero_gpu)
    monkeypatch.undo()
    importlib.reload(_zero_gpu)


def test_elsewhere_nothing_is_decorated_and_the_hosts_package_is_not_needed():
    assert not _zero_gpu.is_zero_gpu() and "spaces" not in sys.modules


def test_the_host_sees_one_function_and_a_slice_leaves_time_for_the_checkpoint(lender):
    lent, module = lender
    assert lent == [module.SLICE_S] and module.is_zero_gpu()
    asked = module.slice_order(tuple("abcdef"), "state.pt", examine_every=9)
    assert asked.seconds + module.SPARE_S == module.SLICE_S
    assert (asked.device, asked.denoiser, asked.quant_settings, asked.examine_every) == ("cuda", "a", "f", 9)


def test_a_used_up_quota_says_that_the_run_can_go_on_later(lender, monkeypatch):
    def refuse(order):
        raise gr.Error("You have exceeded your GPU quota")
        yield

    monkeypatch.setattr(lender[1], "train_slice", refuse)
    with pytest.raises(MpqdmError, match=r"exceeded your GPU quota\. What was learned so far is kept"):
        list(lender[1].take_slice(None))
