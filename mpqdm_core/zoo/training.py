"""What the training commands share: a run folder that survives a kill, a schedule, averaged weights."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mpqdm_core.errors import LoadError

CHECKPOINT_EVERY_S = 60.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up, then a cosine down to a tenth of a percent of the peak."""

    steps: int
    peak: float
    warmup: int = 100
    floor: float = 1e-3  # share of the peak at the last step

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * (
            self.floor + (1 - self.floor) * 0.5 * (1 + float(np.cos(np.pi * min(share, 1.0))))
        )


class RunFolder:
    """A folder with `state.pt`, `log.jsonl` and sample grids; a killed run goes on where it saved last."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if it is not there."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._saved_at = time.monotonic()
        self._started = time.monotonic()
        self.seconds_before = 0.0

    def restore(self, parts: Mapping[str, Any]) -> int:
        """Load the saved state into `parts` (objects with load_state_dict); return the next step."""
        path = self.folder / "state.pt"
        if not path.exists():
            return 0
        try:
            # Written by `save` below, never by somebody else; `load_state_dict` brings it to its device.
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise LoadError(f"{path} is damaged: delete it to start this run again") from error
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.seconds_before = float(state["seconds"])
        return int(state["step"])

    @property
    def seconds(self) -> float:
        """Training time so far, over all restarts."""
        return self.seconds_before + time.monotonic() - self._started

    def save(self, step: int, parts: Mapping[str, Any], *, force: bool = False) -> bool:
        """Write the state if the last time is a minute ago; atomic, so a kill leaves the old one."""
        if not force and time.monotonic() - self._saved_at < CHECKPOINT_EVERY_S:
            return False
        state = {name: part.state_dict() for name, part in parts.items()}
        partial = self.folder / "state.partial"
        torch.save({**state, "step": step, "seconds": self.seconds}, partial)
        os.replace(partial, self.folder / "state.pt")
        self._saved_at = time.monotonic()
        return True

    def log(self, **values: float) -> None:
        """Append one line to the log file and to the program's log."""
        line = json.dumps({name: round(value, 6) for name, value in values.items()})
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        logger.info(line)


class Average(nn.Module):
    """Exponential moving average of a model's parameters; warms up so that early weights are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the model's present weights."""
        super().__init__()
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        shadows = list(self.shadow.values())
        torch._foreach_lerp_(shadows, [value.detach() for value in model.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged weights into `model`."""
        for name, value in model.named_parameters():
            value.copy_(self.shadow[name])

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the averaged weights by parameter name."""
        return dict(self.shadow)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Take averaged weights by parameter name."""
        for name, value in state_dict.items():
            self.shadow[name].copy_(value)


def to_tensor(images: np.ndarray) -> Tensor:
    """Turn uint8 (N, H, W, 3) pictures into float32 (N, 3, H, W) within [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


def to_images(tensor: Tensor) -> np.ndarray:
    """Turn float (N, 3, H, W) within [-1, 1] into uint8 (N, H, W, 3), rounded to the nearest level."""
    scaled = tensor.detach().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def save_grid(images: np.ndarray, path: Path, columns: int, enlarge: int = 2) -> None:
    """Write pictures (N, H, W, 3) as one PNG, row by row."""
    count, height, width, _ = images.shape
    rows = count // columns
    sheet = images[: rows * columns].reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(sheet.reshape(rows * height, columns * width, 3))
    size = (columns * width * enlarge, rows * height * enlarge)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


def settings_text(settings: Any) -> str:
    """Write a settings dataclass as JSON, for a run folder or a model card."""
    return json.dumps(asdict(settings), indent=2)
