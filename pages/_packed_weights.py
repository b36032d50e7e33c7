"""A quantized model that comes out of a packed file, where a fine-tuned one has its adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeights:
    """The denoiser's file, checked before it was offered."""

    file: Path
    content_hash: str  # of its tensors

    def student(self, denoiser: Any) -> Any:
        """The quantized model, with everything but the weights from `denoiser`.

        Raises:
            LoadError: the file was deleted to make room, or belongs to another model.
        """
        from mpqdm_core.packing import attach_packed

        return attach_packed(self.file, denoiser, mode="frozen")
