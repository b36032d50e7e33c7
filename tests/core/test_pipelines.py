from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from tiny_models import CLASS_NAMES, latent_scheduler, tiny_pipeline, tiny_unet, tiny_vae

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

STEPS = 4


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline("class-conditional-ldm")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def latents_of(pipeline, labels, seeds, **settings):
    settings = {"num_inference_steps": STEPS, "output_type": "latent", **settings}
    return pipeline(labels, generator=generators(*seeds), **settings).images


# Euler's tables are made by a call that numpy 2 calls outdated, inside diffusers.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_first_noise_is_as_loud_as_its_timestep_whatever_the_sampler(pipeline):
    euler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="leading")
    drawn_by = ClassConditionalLDMPipeline(pipeline.unet, pipeline.vae, euler, CLASS_NAMES)
    seen = []
    hook = pipeline.unet.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        latents_of(drawn_by, [1], [7], guidance_scale=1.0)
    finally:
        hook.remove()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(seen[0], noise)  # what scaling the input divides by, the start multiplied by


def test_one_step_is_the_guided_ddim_formula_by_hand(pipeline):
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        eps_class = pipeline.unet(noise, 0, class_labels=labels).sample
        eps_null = pipeline.unet(noise, 0, class_labels=torch.tensor([3, 3])).sample
    # One "leading" step stands at t = 0 and, without set_alpha_to_one, also ends at alpha_0.
    a = float(pipeline.scheduler.alphas_cumprod[0])
    guided = eps_null + 2.5 * (eps_class - eps_null)
    x0 = (noise - (1 - a) ** 0.5 * guided) / a**0.5
    expected = a**0.5 * x0 + (1 - a) ** 0.5 * guided
    got = pipeline(
        labels, num_inference_steps=1, guidance_scale=2.5, latents=noise, output_type="latent"
    ).images
    # Rounding of two forward passes, batched otherwise than here: measured 2e-6, times five.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_guidance_of_one_calls_the_network_once_per_step_on_half_the_batch(pipeline):
    sizes = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    try:
        latents_of(pipeline, [0, 1, 2], [1, 2, 3], guidance_scale=1.0)
        latents_of(pipeline, [0, 1, 2], [1, 2, 3], guidance_scale=2.0)
    finally:
        handle.remove()
    assert sizes == [3] * STEPS + [6] * STEPS


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_latent_depends_on_its_own_generator_and_not_on_the_batch(pipeline, eta):
    together = latents_of(pipeline, [0, 1, 2], [1, 2, 3], eta=eta)
    alone = latents_of(pipeline, [1], [2], eta=eta)
    # A convolution of another batch size sums in another order; over 4 steps measured 2e-5. A wrong noise
    # would differ by about 1.
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "change", [{"guidance_scale": 1.5}, {"eta": 1.0}, {"num_inference_steps": 3}, {"labels": [1]}]
)
def test_every_setting_changes_the_result(pipeline, change):
    usual = {"labels": [0], "guidance_scale": 3.0, "eta": 0.0}
    first = latents_of(pipeline, seeds=[5], **usual)
    second = latents_of(pipeline, seeds=[5], **{**usual, **change})
    assert (first - second).abs().max() > 1e-3


def test_output_types_show_the_same_picture(pipeline):
    latent = latents_of(pipeline, [1], [4])
    as_pt, as_np, as_pil = (latents_of(pipeline, [1], [4], output_type=kind) for kind in ("pt", "np", "pil"))
    torch.testing.assert_close(pipeline.decode_latents(latent), as_pt, rtol=0, atol=0)
    np.testing.assert_array_equal(as_pt.permute(0, 2, 3, 1).numpy(), as_np)
    np.testing.assert_array_equal(np.asarray(as_pil[0]), np.round(as_np[0] * 255).astype(np.uint8))
    assert as_np.shape == (1, 8, 8, 3) and as_np.min() >= 0 and as_np.max() <= 1


def test_encode_and_decode_use_scaling_and_shift(pipeline):
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
    # scaling_factor 0.5, shift_factor 0.1
    torch.testing.assert_close(pipeline.encode_images(images), (raw - 0.1) * 0.5, rtol=0, atol=1e-6)
    with torch.no_grad():
        direct = pipeline.vae.decode(raw).sample
    round_trip = pipeline.decode_latents(pipeline.encode_images(images))
    torch.testing.assert_close(round_trip, (direct / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def test_a_saved_folder_loads_as_the_same_pipeline(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = ClassConditionalLDMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    again.set_progress_bar_config(disable=True)
    assert tuple(again.config.class_names) == CLASS_NAMES
    assert torch.equal(latents_of(again, [2], [9]), latents_of(pipeline, [2], [9]))


@pytest.mark.parametrize("labels", [[-1], [4], [0.5], [], [[0]]])
def test_impossible_labels_are_refused(pipeline, labels):
    with pytest.raises(SettingsError, match=r"class.labels"):
        pipeline(labels)


def test_other_impossible_arguments_are_refused(pipeline):
    with pytest.raises(SettingsError, match=r"class labels must be in 0\.\.2, or 3 for none, got 7"):
        pipeline([7])
    with pytest.raises(SettingsError, match="one generator per label, 2, got 1"):
        pipeline([0, 1], generator=generators(1))
    with pytest.raises(SettingsError, match="pil, np, pt, latent, got 'jpeg'"):
        pipeline([0], output_type="jpeg")
    with pytest.raises(ShapeError, match=r"\(1, 4, 8, 8\), got \(1, 4, 9, 8\)"):
        pipeline([0], latents=torch.zeros(1, 4, 9, 8))


def test_a_network_without_classes_or_with_other_names_is_refused():
    with pytest.raises(SettingsError, match="plus one null class, got None"):
        ClassConditionalLDMPipeline(tiny_unet(), tiny_vae(), latent_scheduler())
    with pytest.raises(SettingsError, match="expected 3 class names, got 1"):
        ClassConditionalLDMPipeline(tiny_unet(num_class_embeds=4), tiny_vae(), latent_scheduler(), ["cat"])
