"""A laboratory on a model small enough for a test."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from tiny_models import CLASS_NAMES, latent_scheduler, tiny_unet, tiny_vae

from mpqdm_core.board.laboratory import Laboratory
from mpqdm_core.board.sweep import Effort
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser, SamplerSettings
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import RowSettings
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

EFFORT = Effort(pictures=2, steps=2, batch_size=2, record_pictures=2)


def smallest_model(folder: Path) -> Path:
    unet = tiny_unet(num_class_embeds=4, block_out_channels=(8, 16), attention_head_dim=8, norm_num_groups=4)
    pipeline = ClassConditionalLDMPipeline(unet, tiny_vae(), latent_scheduler(), class_names=CLASS_NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own, about saving
        pipeline.save_pretrained(folder)
    return folder


def small_laboratory(folder: Path) -> Laboratory:
    denoiser = replace(load_denoiser(smallest_model(folder)), sampler=SamplerSettings(num_inference_steps=3))
    calibration = calibrate(denoiser, CalibrationSettings(samples=3, batch_size=3, rows_per_step=8))
    rows = RowSettings(images_per_step=2, positions=4)
    return Laboratory(denoiser, EFFORT, calibration=calibration, rows=rows)


def layer_shapes(denoiser: Denoiser) -> tuple[list[str], list[int], list[int]]:
    """What `BitPlan.uniform` takes."""
    layers = denoiser.quantizable_layers
    return (
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
    )
