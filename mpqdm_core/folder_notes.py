"""How a model folder says it is meant to be sampled: an optional file beside its model_index.json.

    sampler.json    {"num_inference_steps": 20, "guidance_scale": 1.5}, either or both

Stock pipelines have no place for these, and warn about entries of model_index.json that they do not know.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import LoadError
from mpqdm_core.model_files import listed, read_json
from mpqdm_core.strict_json import shown

SAMPLER_FILE = "sampler.json"
NUMBERS = ("num_inference_steps", "guidance_scale")
MAX_STEPS = 1000
MAX_GUIDANCE = 100  # far above any use; larger values overflow
UNGUIDED = 1.0


def folder_sampler(folder: Path, sampler: SamplerSettings, *, guided: bool) -> SamplerSettings:
    """The family's settings with what the folder says instead.

    Args:
        folder: of the model.
        sampler: of the family.
        guided: whether the model can be guided at all.

    Raises:
        LoadError: the file says something else, or what no sampler can do.
    """
    if not (folder / SAMPLER_FILE).exists():
        return sampler
    said = read_json(folder, SAMPLER_FILE)
    where = folder / SAMPLER_FILE
    strange = [name for name in said if name not in NUMBERS]
    if strange:
        raise LoadError(f"{where} may say {listed(NUMBERS)}, found {listed(strange)}")
    steps = said.get("num_inference_steps", sampler.num_inference_steps)
    scale = said.get("guidance_scale", sampler.guidance_scale)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise LoadError(
            f"num_inference_steps in {where} must be a whole number in 1..{MAX_STEPS}, got {shown(steps)}"
        )
    if not _number(scale) or not 0 <= scale <= MAX_GUIDANCE:
        raise LoadError(
            f"guidance_scale in {where} must be a number in [0, {MAX_GUIDANCE}], got {shown(scale)}"
        )
    if not guided and scale != UNGUIDED:
        raise LoadError(f"guidance_scale in {where} must be 1 for a model without classes, got {scale:g}")
    return replace(sampler, num_inference_steps=steps, guidance_scale=float(scale))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
