"""Packed text-to-image folders: export, load, and the same pictures, here and through diffusers itself."""

from dataclasses import replace
from functools import cache

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import PROMPTS, few_steps, text_denoiser
from tiny_quant import uniform_plan

from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.errors import LoadError
from mpqdm_core.packing import PackedLayer, export_packed, load_packed
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample

# One whose denoiser is a U-Net and one with a transformer, two text encoders and latents of another shape.
FAMILIES = {"stable-diffusion": "StableDiffusionPipeline", "flux": "FluxPipeline"}
SEEDS = [5, 6]


@cache
def quantized(family):
    model = text_denoiser(family)
    settings = CalibrationSettings(samples=2, batch_size=2, rows_per_step=8, sampler=few_steps(family))
    plan = uniform_plan(model, 4)
    bits = np.random.default_rng(0).permutation(np.arange(len(plan.bits)) % 8 + 1).astype(np.int8)
    return quantize(
        model, calibrate(model, settings), replace(plan, bits=bits), QuantSettings(activation_bits=6)
    )


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "model"
    export_packed(quantized(request.param), folder, scale_dtype="float32")
    return request.param, folder


def drawn(model, family):
    return sample(model.denoiser, labels=[0, 1], seeds=SEEDS, settings=few_steps(family))


def test_a_loaded_folder_draws_the_same_pictures_bit_for_bit(exported):
    family, folder = exported
    loaded, expected = load_packed(folder), drawn(quantized(family), family)
    found = drawn(loaded, family)
    np.testing.assert_array_equal(found.latents, expected.latents)
    np.testing.assert_array_equal(found.images, expected.images)
    source = quantized(family).denoiser
    assert loaded.denoiser.class_names == PROMPTS and loaded.denoiser.num_classes == len(PROMPTS)
    assert loaded.denoiser.latent_shape == source.latent_shape
    assert (loaded.denoiser.family, loaded.content_hash) == (family, source.content_hash)
    assert all(isinstance(layer, PackedLayer) for layer in loaded.layers.values())


def test_the_pipelines_own_from_pretrained_draws_them_too(exported):
    family, folder = exported
    pipeline = getattr(diffusers, FAMILIES[family]).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    settings = few_steps(family)
    pictures = pipeline(
        prompt=list(PROMPTS[:2]),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        output_type="np",
        **({"height": 8, "width": 8} if family == "flux" else {}),
    ).images
    expected = drawn(quantized(family), family).images
    np.testing.assert_array_equal(np.round(pictures * 255).astype(np.uint8), expected)


def test_a_denoiser_under_another_name_is_a_sentence(exported):
    _, folder = exported
    (part,) = (path.parent.name for path in folder.glob("*/mpqdm.json"))
    (folder / part).rename(folder / "student")
    try:
        with pytest.raises(LoadError, match="is student, which its pipeline does not have"):
            load_packed(folder)
    finally:
        (folder / "student").rename(folder / part)
