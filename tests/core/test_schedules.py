"""Other samplers for the same model: the plain pipeline as oracle, formulas in numpy, borrowed timesteps."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tiny_models import CLASS_NAMES, tiny_denoiser, tiny_pipeline
from tiny_pipelines import few_steps, text_denoiser, text_pipeline

from mpqdm_core.allocation import BitPlan
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import DataError, SettingsError
from mpqdm_core.pipelines import ClassConditionalLDMPipeline
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample
from mpqdm_core.schedules import SCHEDULERS, scheduler_names, step_factors, with_scheduler
from mpqdm_core.teacher import record_teacher
from mpqdm_core.timesteps import mapping_note, nearest_timestep, timestep_value

# Euler's tables are made by a call that numpy 2 calls outdated, inside diffusers.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
STEPS = SamplerSettings(num_inference_steps=4, guidance_scale=2.0)
SEEDS = [11, 12]
NAMES = ("ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-solver++")


@cache
def bundled_kind():
    return tiny_denoiser("class-conditional-ldm")


def draw(denoiser, seeds=SEEDS, settings=STEPS):
    return sample(denoiser, labels=[seed % 3 for seed in seeds], seeds=seeds, settings=settings, record="all")


def generators(seeds=SEEDS):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_the_plain_pipeline_with_that_scheduler(name):
    model = with_scheduler(bundled_kind(), name)
    samples = draw(model)
    plain = tiny_pipeline("class-conditional-ldm")
    changes = {"skip_prk_steps": True} if name == "pndm" else {}
    scheduler = SCHEDULERS[name].from_config(plain.scheduler.config, **changes)
    pipeline = ClassConditionalLDMPipeline(plain.unet.eval(), plain.vae.eval(), scheduler, CLASS_NAMES)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        [seed % 3 for seed in SEEDS], generator=generators(), num_inference_steps=4, guidance_scale=2.0,
        output_type="latent",
    ).images  # fmt: skip
    np.testing.assert_array_equal(samples.latents, expected.numpy())
    alone = draw(model, SEEDS[1:])  # noise comes from the sample's own generator
    scale = np.abs(samples.trajectory).max()
    np.testing.assert_allclose(alone.trajectory, samples.trajectory[:, 1:], atol=2e-4 * scale)
    assert model.content_hash == bundled_kind().content_hash


@pytest.mark.parametrize("name", ["euler-ancestral", "dpm-solver++"])
def test_stable_diffusion_takes_other_schedulers_as_the_plain_pipeline_does(name):
    model, settings = text_denoiser("stable-diffusion"), few_steps("stable-diffusion")
    samples = draw(with_scheduler(model, name), settings=settings)
    scheduler = SCHEDULERS[name].from_config(model.pipeline.scheduler.config)
    expected = text_pipeline("stable-diffusion", scheduler=scheduler)(
        prompt=[model.class_names[seed % 3] for seed in SEEDS], generator=generators(),
        num_inference_steps=3, guidance_scale=settings.guidance_scale, output_type="latent",
    ).images  # fmt: skip
    np.testing.assert_array_equal(samples.latents, expected.numpy())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["ddim", "pndm", "euler", "dpm-solver++"])
def test_the_predicted_picture_is_the_formula(name, kind):
    """In numpy, float64, from betas up: shares no code with the schedulers."""
    model = bundled_kind()
    changed = with_scheduler(model, name)
    was = changed.pipeline.scheduler
    scheduler = type(was).from_config(was.config, prediction_type=kind)
    pipeline = ClassConditionalLDMPipeline(model.pipeline.unet, model.pipeline.vae, scheduler, CLASS_NAMES)
    samples = draw(replace(changed, pipeline=pipeline))
    cumulative = np.cumprod(1 - np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2)
    a = cumulative[samples.timesteps].reshape(-1, 1, 1, 1, 1)
    x = samples.trajectory * (np.sqrt(a) if name == "euler" else 1)  # Euler walks on x / sqrt(a)
    if kind == "epsilon":
        expected = (x - np.sqrt(1 - a) * samples.predictions) / np.sqrt(a)
    else:
        expected = np.sqrt(a) * x - np.sqrt(1 - a) * samples.predictions
    np.testing.assert_allclose(samples.x0, expected, rtol=2e-3, atol=2e-3)


def test_the_predicted_picture_of_a_flow_is_the_formula():
    samples = draw(text_denoiser("stable-diffusion-3"), settings=few_steps("stable-diffusion-3"))
    sigma = samples.timesteps.reshape(-1, 1, 1, 1, 1) / 1000
    expected = samples.trajectory - sigma * samples.predictions
    tolerance = 0.0006 * np.abs(samples.predictions).max()  # timesteps are rounded to whole ones
    np.testing.assert_allclose(samples.x0, expected, atol=tolerance)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_step_factors_are_what_a_step_does_to_an_error(kind):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, prediction_type=kind)
    scheduler.set_timesteps(4)
    steps = scheduler.timesteps.tolist()
    check_factors(scheduler, steps, steps)


def test_step_factors_of_a_flow():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    check_factors(scheduler, list(scheduler.timesteps), scheduler.timesteps.round().int().tolist())


def check_factors(scheduler, steps, keys):
    x = torch.zeros(1, 1)
    moved = []
    for step in steps:
        wrong = float(scheduler.step(x + 1, step, x).prev_sample)
        if hasattr(scheduler, "_step_index") and scheduler._step_index:
            scheduler._step_index -= 1
        moved.append(wrong - float(scheduler.step(x, step, x).prev_sample))
    np.testing.assert_allclose(step_factors(scheduler, keys).numpy(), moved, atol=1e-3)


def test_what_was_made_for_one_sampler_serves_another_and_says_so():
    model = bundled_kind()
    calibration = calibrate(
        model, CalibrationSettings(samples=2, batch_size=2, rows_per_step=8, sampler=STEPS)
    )
    layers = model.quantizable_layers
    plan = BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        4,
    )
    student = quantize(model, calibration, plan, QuantSettings(activation_bits=6)).denoiser
    assert calibration.timesteps == (750, 500, 250, 0)
    assert draw(student).notes == () and draw(model).notes == ()
    other = with_scheduler(student, "dpm-solver++")
    reference, candidate = draw(with_scheduler(model, "dpm-solver++")), draw(other)
    visited = reference.timesteps.tolist()
    assert not set(visited) <= set(calibration.timesteps)
    (note,) = candidate.notes
    assert note == mapping_note((750, 500, 250, 0), visited)
    assert note in compare(reference, candidate).notes
    # PNDM visits one timestep twice: the teacher's record holds every timestep once, rows in step.
    record = record_teacher(with_scheduler(model, "pndm"), pictures=2, sampler=STEPS)
    assert len(record.timesteps) == 4 and record.prediction.shape[:3] == (4, 2, 2)


def test_borrowed_timesteps_in_words_and_numbers():
    assert nearest_timestep(620, (750, 500)) == 1 and nearest_timestep(625, (750, 500)) == 0
    assert mapping_note((750, 500), (500, 750)) == "" and mapping_note((), (3,)) == ""
    assert mapping_note((750, 500), (999, 740, 740, 500)) == (
        "2 of 3 timesteps have no activation ranges of their own and use those of the nearest one that has; "
        "the farthest is 999, which uses 750's."
    )
    assert timestep_value(torch.tensor([0.9473, 0.9473]), 1000.0) == 947
    with pytest.raises(DataError, match="one timestep per call"):
        timestep_value(torch.tensor([0.1, 0.2]), 1000.0)


def test_a_sampler_that_a_pipeline_cannot_walk_with_is_refused():
    assert scheduler_names(tiny_denoiser("ddpm")) == ("ddim",)
    with pytest.raises(SettingsError, match="can be drawn by ddim, not by 'euler'"):
        with_scheduler(tiny_denoiser("ddpm"), "euler")
    with pytest.raises(SettingsError, match="a EulerDiscreteScheduler takes no eta"):
        draw(with_scheduler(bundled_kind(), "euler"), settings=SamplerSettings(eta=1.0))
