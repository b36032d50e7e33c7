"""A calibration that was stopped or killed goes on with what it has heard, whatever draws the pictures."""

import signal
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from tiny_models import tiny_denoiser
from tiny_pipelines import few_steps, text_denoiser
from tiny_quant import SMALL, small_denoiser
from torch import nn

from mpqdm_core import calibration_journal
from mpqdm_core.calibration import calibrate
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import Cancelled, DataError, LoadError

PROMPTED = ("stable-diffusion", "pixart", "stable-diffusion-3", "flux")
PLAIN = ("class-conditional-ldm", "ldm", "ddim")


@lru_cache
def case(family):
    """A model of the family and small settings for it."""
    if family in PROMPTED:
        return text_denoiser(family), replace(SMALL, sampler=few_steps(family))
    guidance = 1.5 if family == "class-conditional-ldm" else 1.0
    # Noise in every step: the random numbers of the later ones depend on those of the earlier ones.
    sampler = SamplerSettings(num_inference_steps=3, guidance_scale=guidance, eta=1.0)
    return tiny_denoiser(family), replace(SMALL, sampler=sampler)


def stop_after(steps):
    """A report that stops the calibration when so many steps are done."""

    def report(done, total, text):
        if done == steps:
            raise Cancelled("stopped")

    return report


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls that are really computed."""
    counted = []
    answer = calibration_journal.output_tensor
    monkeypatch.setattr(
        calibration_journal, "output_tensor", lambda output: counted.append(1) or answer(output)
    )
    return counted


@pytest.mark.parametrize("family", [*PLAIN, *PROMPTED])
def test_what_was_stopped_goes_on_with_the_same_result(tmp_path, family, calls):
    denoiser, settings = case(family)
    whole = calibrate(denoiser, settings, checkpoint=tmp_path / "whole")
    every = len(calls)
    calls.clear()
    with pytest.raises(Cancelled):
        calibrate(denoiser, settings, stop_after(4), checkpoint=tmp_path / "state")
    first = len(calls)
    again = calibrate(denoiser, settings, checkpoint=tmp_path / "state")
    assert again.content_hash == whole.content_hash == calibrate(denoiser, settings).content_hash
    assert 0 < first < every and len(calls) == every, "nothing is computed twice"
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_broke_off_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration_journal, "SAVE_EVERY_S", 0.0)
    denoiser = small_denoiser()
    path, whole = tmp_path / "state", calibrate(denoiser, SMALL)
    with pytest.raises(Cancelled):
        calibrate(denoiser, SMALL, stop_after(2), checkpoint=path)
    kept = path.read_bytes()
    last = [name for name, module in denoiser.network.named_modules() if isinstance(module, nn.Conv2d)][-1]

    def fail(*_):
        raise DataError("something broke")

    handle = denoiser.network.get_submodule(last).register_forward_hook(fail)
    with pytest.raises(DataError, match="something broke"):  # the layers before it were heard
        calibrate(denoiser, SMALL, checkpoint=path)
    handle.remove()
    assert path.read_bytes() == kept
    assert calibrate(denoiser, SMALL, checkpoint=path).content_hash == whole.content_hash


KILLED = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from tiny_quant import SMALL, small_denoiser
from mpqdm_core import calibration_journal
from mpqdm_core.calibration import calibrate

def report(done, total, text):
    print(done, flush=True)
    if done == 3:
        sys.stdin.read()

calibration_journal.SAVE_EVERY_S = 0.0
calibrate(small_denoiser(), SMALL, report, checkpoint=pathlib.Path(sys.argv[2]))
"""


def test_a_killed_process_is_gone_on_with(tmp_path, calls):
    path = tmp_path / "state"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert [process.stdout.readline() for _ in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
        process.send_signal(signal.SIGKILL)
    whole = calibrate(small_denoiser(), SMALL)
    again = calibrate(small_denoiser(), SMALL, checkpoint=path)
    assert again.content_hash == whole.content_hash
    assert len(calls) == 3, "six steps in all, three of which the killed process took"


def test_the_file_of_another_calibration_is_refused_and_kept(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(Cancelled):
        calibrate(small_denoiser(), SMALL, stop_after(2), checkpoint=path)
    with pytest.raises(DataError, match="state is of another calibration"):
        calibrate(small_denoiser(), replace(SMALL, seed=1), checkpoint=path)
    assert path.exists()


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"not a state")
    with pytest.raises(LoadError, match="state is damaged: delete it to calibrate"):
        calibrate(small_denoiser(), SMALL, checkpoint=path)
