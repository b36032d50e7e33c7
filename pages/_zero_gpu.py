"""Fine-tuning on a Space with ZeroGPU: a GPU for a minute at a time, in a process of its own.

The host wants to see a decorated function when the program starts, lends the GPU while that function runs,
and ends it when the time is up. Elsewhere the decorator does nothing and nobody asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from mpqdm_core.errors import MpqdmError

SLICE_S = 60  # the host's default; a visitor's daily quota is a few of these
DEVICE = "cuda"
SPARE_S = 15  # of it, for starting and for writing the checkpoint
QUOTA = "{reason} What was learned so far is kept: press Resume when there is time on the GPU again."


def is_zero_gpu() -> bool:
    """Whether this host lends a GPU by the call."""
    return os.environ.get("SPACES_ZERO_GPU", "").strip().lower() in ("1", "true")


def lent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate what shall run where the GPU is."""
    if not is_zero_gpu():
        return function
    import spaces

    decorated: Callable[..., Any] = spaces.GPU(duration=SLICE_S)(function)
    return decorated


@lent
def train_slice(order: Any) -> Iterator[Any]:
    """One slice, where the GPU is."""
    from mpqdm_core.finetune_slices import run_slice

    yield from run_slice(order)


def slice_order(common: tuple[Any, ...], checkpoint: Path, **looks: Any) -> Any:
    """What a slice needs, from the arguments of `finetune`."""
    from mpqdm_core.finetune_slices import SliceOrder

    names = ("denoiser", "calibration", "plan", "record", "settings", "quant_settings")
    parts = dict(zip(names, common, strict=True))
    return SliceOrder(**parts, checkpoint=checkpoint, seconds=SLICE_S - SPARE_S, device=DEVICE, **looks)


def take_slice(order: Any) -> Iterator[Any]:
    """One slice; running out of quota is a sentence.

    Raises:
        MpqdmError: there is no time left on the GPU.
    """
    try:
        yield from train_slice(order)
    except gr.Error as error:  # how the host says that the quota is used up, or that the time was
        raise MpqdmError(QUOTA.format(reason=str(error).strip("'").rstrip(".") + ".")) from error
