"""Where Triton's kernels cannot be used, weights are unpacked: none there, or some that fail or are wrong."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from mpqdm_core.activations import ActivationQuantizer
from mpqdm_core.errors import SettingsError
from mpqdm_core.packing import multiplication
from mpqdm_core.packing.window import Window
from mpqdm_core.timestep_clock import TimestepClock

CPU = torch.device("cpu")


@pytest.fixture
def interpreted(monkeypatch):
    """As if Triton's interpreter stood in for a GPU."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    multiplication.kernels_for.cache_clear()
    yield
    multiplication.kernels_for.cache_clear()


def failing(*_args, **_kwargs):
    raise RuntimeError("no C compiler")


def wrong(_weight, _tables, x, *_args, **_kwargs):
    return torch.zeros(len(x), 16)


def test_off_cuda_there_are_no_kernels(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    multiplication.kernels_for.cache_clear()
    assert multiplication.kernels_for(CPU) is None
    multiplication.kernels_for.cache_clear()


def test_without_triton_there_are_no_kernels(interpreted, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "mpqdm_core.packing.triton_kernels", raising=False)
    assert multiplication.kernels_for(CPU) is None


@pytest.mark.parametrize(
    ("multiply", "words"), [(failing, "do not work on cpu .*no C compiler"), (wrong, "miscalculate on cpu")]
)
def test_kernels_that_fail_or_are_wrong_are_left_alone(interpreted, monkeypatch, caplog, multiply, words):
    name = "mpqdm_core.packing.triton_kernels"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(multiply=multiply))
    assert multiplication.kernels_for(CPU) is None
    assert len(caplog.records) == 1
    assert re.search(words, caplog.text)


@pytest.mark.parametrize(
    ("window", "size", "expected"),
    [
        (Window(kernel=(3, 3), padding=(1, 1)), (8, 6), (8, 6)),
        (Window(kernel=(3, 3), stride=(2, 2), padding=(1, 1)), (8, 7), (4, 4)),
        (Window(kernel=(2, 3), dilation=(1, 2)), (5, 9), (4, 5)),
    ],
)
def test_a_window_knows_its_positions(window, size, expected):
    layer = torch.nn.Conv2d(1, 1, window.kernel, window.stride, window.padding, window.dilation, bias=False)
    assert window.positions(*size) == expected == tuple(layer(torch.zeros(1, 1, *size)).shape[2:])


def test_steps_by_hand():
    clock = TimestepClock((3,))
    clock.set(3)
    quantizer = ActivationQuantizer(
        channel_axis=-1, bits=2, scale=torch.tensor([0.5]), zero_point=torch.tensor([1.0]), clock=clock
    )
    steps, lowest, step = quantizer.steps(torch.tensor([-9.0, -0.3, 0.2, 0.6, 9.0]))
    assert steps.tolist() == [-1.0, -1.0, 0.0, 1.0, 2.0] and (lowest, step) == (-1.0, 0.5)
    with pytest.raises(SettingsError, match="full precision: there are no steps"):
        ActivationQuantizer(channel_axis=-1).steps(torch.zeros(1))
