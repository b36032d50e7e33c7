"""How well pictures fit their prompts, as a CLIP model sees it (Hessel et al. 2021).

The score of one picture is 100 times the cosine between its embedding and its prompt's, and 0 where that is
negative. Scores of different CLIP models cannot be compared. Of sprites they say little: no CLIP was trained
on such pictures, and caption agreement stands in for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from torch import Tensor

from mpqdm_core.errors import DataError, LoadError, ShapeError
from mpqdm_core.hub import parse_hub_source
from mpqdm_core.hub_requests import endpoint, sentences
from mpqdm_core.intervals import Array
from mpqdm_core.progress import Report, silent

FILES = ("*.json", "*.txt", "model*.safetensors")  # no pickle, no code
PERCENT = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipJudge:
    """A CLIP model and how it wants to be given pictures and words."""

    name: str
    model: Any  # transformers.CLIPModel
    processor: Any  # transformers.CLIPProcessor


def load_clip(source: str | Path, *, token: str | None = None) -> ClipJudge:
    """Load a CLIP model from a folder, or from the Hub, whose cache is used.

    Args:
        source: a folder, "owner/name" or "owner/name@revision"; weights must be safetensors.
        token: for gated models; None takes the HF_TOKEN of the environment.

    Raises:
        LoadError: there is no such model, it cannot be reached, or it is no CLIP model.
    """
    from transformers import CLIPModel, CLIPProcessor

    model: Any  # its methods are not annotated
    folder = Path(source) if Path(source).is_dir() else _fetched(str(source), token)
    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise LoadError(f"{source} is no CLIP model that can be read: {first[:200]}") from error
    return ClipJudge(name=str(source), model=model.eval().requires_grad_(False), processor=processor)


def clip_scores(
    judge: ClipJudge,
    images: NDArray[np.uint8],
    prompts: Sequence[str],
    *,
    batch_size: int = 32,
    report: Report = silent,
) -> Array:
    """Score each picture against its own prompt.

    Args:
        judge: from `load_clip`.
        images: (N, H, W, 3) uint8.
        prompts: one a picture; what goes beyond the model's length is cut off.
        batch_size: pictures at once.
        report: called before every batch; may raise `Cancelled`.

    Returns:
        (N,) float64 within 0..100.

    Raises:
        ShapeError: `images` is not (N, H, W, 3), or there are not as many prompts.
        DataError: there are no pictures.
    """
    if images.ndim != 4 or images.shape[3] != 3 or len(prompts) != len(images):
        raise ShapeError(
            f"images must be (N, H, W, 3) with a prompt each, got {images.shape} and {len(prompts)}"
        )
    if len(images) == 0:
        raise DataError("there are no pictures to score")
    scores = []
    for start in range(0, len(images), batch_size):
        report(start, len(images), "reading pictures and prompts")
        part = slice(start, start + batch_size)
        scores.append(_cosines(judge, images[part], prompts[part]))
    return PERCENT * np.maximum(np.concatenate(scores), 0.0)


@torch.no_grad()
def _cosines(judge: ClipJudge, images: NDArray[np.uint8], prompts: Sequence[str]) -> Array:
    given = judge.processor(
        text=list(prompts),
        images=list(images),
        return_tensors="pt",
        padding=True,
        truncation=True,
        input_data_format="channels_last",
    )
    seen = judge.model(**given)
    found: Tensor = torch.nn.functional.cosine_similarity(
        seen.image_embeds.double(), seen.text_embeds.double()
    )
    return found.numpy()


def _fetched(source: str, token: str | None) -> Path:
    repo_id, revision = parse_hub_source(source)
    with sentences(repo_id, revision):
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=list(FILES), endpoint=endpoint(), token=token
            )
        )
