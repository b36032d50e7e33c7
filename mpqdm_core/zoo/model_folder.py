"""Writing a trained model: an ordinary diffusers folder, with its card, its settings and how it is sampled.

<folder>/model_index.json ...   by save_pretrained: plain diffusers loads it, without this project
<folder>/sampler.json           guidance scale and steps the model is meant to be sampled with
<folder>/prompts.json           what to ask a text-to-image model, if it is one
<folder>/training.json          every setting, the last line of the log, the device
<folder>/README.md              the card; its table of figures is filled by `benchmarks._readme`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

import torch
from diffusers import AutoencoderKL

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.folder_notes import SAMPLER_FILE
from mpqdm_core.prompted_loading import PROMPTS_FILE
from mpqdm_core.saved_configs import forget_origins
from mpqdm_core.zoo.denoiser_training import DEVICE_FILE, TrainingSettings
from mpqdm_core.zoo.training import RunFolder

ASSETS = Path(__file__).resolve().parents[2] / "assets"
MODELS = ASSETS / "models"
CARDS = ASSETS / "text" / "cards"
AUTOENCODER = MODELS / "sprites-ldm" / "vae"  # shared by all models in latent space


def load_autoencoder(folder: Path = AUTOENCODER) -> AutoencoderKL:
    """The trained autoencoder that ships with `sprites-ldm`; its configuration holds the scaling factor."""
    vae = AutoencoderKL.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )
    return vae.eval().requires_grad_(False)


def write_model(
    pipeline: Any,
    folder: Path,
    *,
    run: RunFolder,
    settings: TrainingSettings,
    sampler: SamplerSettings,
    half: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> None:
    """Write the folder of a trained model.

    Args:
        pipeline: of stock classes, its parts in float32.
        folder: called as the model; a card text of that name must be there, or a general one is taken.
        run: its log says how long the training took.
        settings: of the training.
        sampler: how the model is meant to be sampled.
        half: names of parts that are stored in float16, to half their size.
        prompts: for a text-to-image model, what to ask it.
    """
    for name in half:
        getattr(pipeline, name).to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    forget_origins(folder)
    _write(folder / SAMPLER_FILE, {k: v for k, v in asdict(sampler).items() if k != "eta"})
    if prompts:
        _write(folder / PROMPTS_FILE, {"prompts": list(prompts)})
    training = {
        **asdict(settings),
        "log": last_line(run),
        "device": device_of_run(run),
        "float16": list(half),
    }
    _write(folder / "training.json", training)
    (folder / "README.md").write_text(card(folder.name, training, sampler), encoding="utf-8")


def card(name: str, training: dict[str, Any], sampler: SamplerSettings) -> str:
    """The model card: its text with what the training says."""
    log = training["log"]
    hours = log.get("seconds", 0.0) / 3600
    text = Template((CARDS / f"{name}.md").read_text(encoding="utf-8"))
    return text.substitute(
        steps=f"{int(log.get('step', 0)):,}",
        planned=f"{training['steps']:,}",
        hours=f"{hours:.1f}",
        seed=training["seed"],
        batch=training["batch_size"],
        pictures=f"{training['pictures']:,}",
        device=training["device"],
        guidance=f"{sampler.guidance_scale:g}",
        ddim=sampler.num_inference_steps,
    )


def device_of_run(run: RunFolder) -> str:
    """What a run was trained on last."""
    path = run.folder / DEVICE_FILE
    return path.read_text(encoding="utf-8") if path.exists() else "a device that was not written down"


def last_line(run: RunFolder) -> dict[str, float]:
    """The last line of a run's log; empty before there is one."""
    path = run.folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    last: dict[str, float] = json.loads(lines[-1]) if lines else {}
    return last


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
