"""Calibrated models small enough for a test: a random U-Net, and any hand-written network."""

from __future__ import annotations

from functools import cache

import torch
from diffusers import UNet2DModel
from tiny_models import latent_scheduler, tiny_vae

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.denoiser import Denoiser, SamplerSettings, describe_layers
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.input_stats import StatsCollector
from mpqdm_core.pipelines import ClassConditionalLDMPipeline
from mpqdm_core.recording import InputRecorder

torch.set_num_threads(
    1
)  # on tensors this small, waiting for a second thread on a busy machine takes far longer

STEPS = SamplerSettings(num_inference_steps=3)
SMALL = CalibrationSettings(samples=3, batch_size=2, rows_per_step=8, sampler=STEPS)


@cache
def small_denoiser() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=4,
            num_class_embeds=4,
        )
        pipeline = ClassConditionalLDMPipeline(unet, tiny_vae(), latent_scheduler())
    return make_denoiser(pipeline, FAMILIES["class-conditional-ldm"], name="small", source="test")


@cache
def small_calibration() -> Calibration:
    return calibrate(small_denoiser(), SMALL)


def uniform_plan(denoiser: Denoiser, bits: int) -> BitPlan:
    layers = denoiser.quantizable_layers
    return BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        bits,
    )


def by_hand(network, samples, timesteps, rows=64):
    """A Denoiser without a pipeline, and its Calibration on samples (T, N, ...), without any sampler."""
    network.eval().requires_grad_(False)
    first = {"sample": samples[0][:1], "timestep": torch.tensor(timesteps[0])}
    denoiser = Denoiser(
        name="by-hand",
        family="ddpm",
        pipeline=None,
        network=network,
        layers=describe_layers(network, first, ()),
        num_classes=None,
        class_names=(),
        content_hash="by-hand",
        source="test",
    )
    recorder = InputRecorder()
    handles = [network.register_forward_pre_hook(recorder.on_forward, with_kwargs=True)]
    collector = StatsCollector(rows_per_call=rows, rows_per_step=rows, seed=0, timestep=recorder.timestep)
    handles += [
        network.get_submodule(layer.name).register_forward_pre_hook(collector.watch(layer.name))
        for layer in denoiser.layers
    ]
    with torch.no_grad():
        for timestep, sample in zip(timesteps, samples, strict=True):
            network(sample, torch.tensor(timestep))
    for handle in handles:
        handle.remove()
    inputs = recorder.finish()
    calibration = Calibration(
        settings=SMALL, denoiser_hash="by-hand", inputs=inputs, layers=collector.finish(inputs.timesteps)
    )
    return denoiser, calibration
