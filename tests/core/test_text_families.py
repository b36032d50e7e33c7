"""Text-to-image pipelines through the whole way; the oracle is the plain pipeline, called directly."""

import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from tiny_pipelines import (
    MAKERS,
    PROMPTS,
    few_steps,
    save_text_model,
    text_denoiser,
    text_pipeline,
)

from mpqdm_core.allocation import AllocationSettings, BitPlan, allocate
from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.families import FAMILIES, make_denoiser, with_prompts
from mpqdm_core.finetune_run import finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.network_calls import joined_calls
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.recording import output_tensor
from mpqdm_core.sampling import decode, sample
from mpqdm_core.sensitivity import channel_sensitivity
from mpqdm_core.stored_weights import open_stored
from mpqdm_core.teacher import FIRST_SEED, TeacherRecord, record_teacher
from mpqdm_core.trajectory import injected_predictions

# Euler's tables are made by a call that numpy 2 calls outdated, inside diffusers.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = tuple(MAKERS)
SEEDS = [5, 6]


@cache
def denoiser(family):
    return text_denoiser(family)


@cache
def calibration(family):
    settings = CalibrationSettings(samples=2, batch_size=2, rows_per_step=8, sampler=few_steps(family))
    return calibrate(denoiser(family), settings)


@cache
def drawn(family):
    return sample(denoiser(family), labels=[0, 1], seeds=SEEDS, settings=few_steps(family), record="all")


def plain(pipeline, family, prompts=PROMPTS[:2], seeds=SEEDS, **changes):
    """What somebody without this project gets."""
    special = {
        "flux": {"height": 8, "width": 8},
        "pixart": {"use_resolution_binning": False, "clean_caption": False},
    }
    settings = few_steps(family)
    arguments = {
        "prompt": list(prompts),
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "output_type": "np",
    }
    return pipeline(**{**arguments, **special.get(family, {}), **changes}).images


@pytest.mark.parametrize("family", NAMES)
def test_pictures_are_those_of_the_plain_pipeline_bit_for_bit(family):
    samples = drawn(family)
    expected = plain(text_pipeline(family), family)
    np.testing.assert_array_equal(samples.images, np.round(expected * 255).astype(np.uint8))
    assert samples.trajectory.shape[2:] == denoiser(family).latent_shape == (4, 8, 8)
    np.testing.assert_array_equal(decode(denoiser(family), samples.latents), samples.images)
    np.testing.assert_array_equal(injected_predictions(denoiser(family), samples), samples.predictions)


@pytest.mark.parametrize("family", NAMES)
def test_a_saved_folder_is_loaded_and_its_files_say_the_same(family, tmp_path):
    loaded = load_denoiser(save_text_model(tmp_path / "m", family))
    assert loaded.family == family and loaded.content_hash == denoiser(family).content_hash
    assert loaded.num_classes == len(loaded.class_names) > 1
    again = sample(with_prompts(loaded, PROMPTS), labels=[0, 1], seeds=SEEDS, settings=few_steps(family))
    np.testing.assert_array_equal(again.latents, drawn(family).latents)
    stored = open_stored(tmp_path / "m")
    assert {(layer.name, layer.exempt) for layer in stored.layers} == {
        (layer.name, layer.exempt) for layer in loaded.layers
    }


@pytest.mark.parametrize("family", NAMES)
def test_what_was_recorded_can_be_given_again_and_guided(family, tmp_path):
    """The record's two halves, guided by hand, are what the pipeline gave its scheduler."""
    settings = few_steps(family)
    record = record_teacher(denoiser(family), pictures=2, sampler=settings)
    samples = sample(
        denoiser(family), labels=[0, 1], seeds=[FIRST_SEED, FIRST_SEED + 1], settings=settings, record="all"
    )
    first_visits = [samples.timesteps.tolist().index(step) for step in record.timesteps]  # PNDM repeats one
    free, asked = record.prediction[:, :, 0], record.prediction[:, :, -1]
    expected = free + settings.guidance_scale * (asked - free) if record.guided else asked
    assert record.guided == (family != "flux")  # there the network itself takes the scale
    unpack = FAMILIES[family].unpack
    for place, prediction in zip(first_visits, expected, strict=True):
        maps = prediction if unpack is None else unpack(denoiser(family).pipeline, prediction)
        np.testing.assert_allclose(samples.predictions[place], maps[:, :4], atol=1e-5)
    record.save(tmp_path / "teacher")
    reread = TeacherRecord.load(tmp_path / "teacher")
    assert reread.content_hash == record.content_hash
    with torch.no_grad():
        again = denoiser(family).network(**reread.arguments(1, torch.tensor([1]), "cpu"))[0]
    torch.testing.assert_close(again, record.prediction[1, 1], rtol=1e-4, atol=1e-5)


def test_inputs_that_are_not_the_samples_own_are_kept(tmp_path):
    inputs = calibration("stable-diffusion-xl").inputs
    assert set(inputs.conditioning) == {
        "encoder_hidden_states", "added_cond_kwargs.text_embeds", "added_cond_kwargs.time_ids"
    }  # fmt: skip
    assert inputs.timestep_values and inputs.timestep_values[0] == pytest.approx(667, abs=1)  # Euler's floats
    flux = calibration("flux").inputs
    assert set(flux.shared) == {"img_ids", "txt_ids"} and flux.shared["img_ids"].shape == (16, 3)
    assert flux.timesteps == tuple(drawn("flux").timesteps.tolist())  # whole, though Flux is given fractions
    assert [round(1000 * value) for value in flux.timestep_values] == list(flux.timesteps)
    calibration("flux").save(tmp_path / "calibration")
    reread = Calibration.load(tmp_path / "calibration")
    assert reread.content_hash == calibration("flux").content_hash
    torch.testing.assert_close(
        reread.inputs.arguments(2, torch.tensor([0]))["timestep"], torch.tensor([flux.timestep_values[2]])
    )


@pytest.mark.parametrize("family", ["stable-diffusion-xl", "pixart", "stable-diffusion-3", "flux"])
def test_the_whole_way(family):
    model, settings = denoiser(family), QuantSettings(activation_bits=6)
    rows = RowSettings(images_per_step=1, positions=4)
    sensitivity = channel_sensitivity(model, calibration(family), images_per_step=2)
    table = measure_error_table(model, calibration(family), settings, rows=rows, sensitivity=sensitivity)
    plan = allocate(table, AllocationSettings(policy="optimal", average_bits=3.0)).plan
    coarse = quantize(model, calibration(family), plan, settings)
    fine = quantize(
        model, calibration(family), uniform(plan, 8), QuantSettings(activation_bits=None, prescale_alpha=None)
    )
    ratio = {}
    for name, student in (("coarse", coarse), ("fine", fine)):
        candidate = sample(
            student.denoiser, labels=[0, 1], seeds=SEEDS, settings=few_steps(family), record="all"
        )
        ratio[name] = compare(drawn(family), candidate).latent_snr_db.mean.value
    assert ratio["fine"] > 25 and ratio["fine"] > ratio["coarse"] + 3  # eight bits are near, three are not


def uniform(plan, bits):
    counts = np.diff(plan.layer_start)
    return BitPlan.uniform(plan.layer_names, counts, plan.weights_per_channel, bits)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_fine_tuning_brings_the_student_nearer(family):
    model = denoiser(family)
    plan = BitPlan.uniform(
        [layer.name for layer in model.quantizable_layers],
        [layer.out_channels for layer in model.quantizable_layers],
        [layer.weights_per_channel for layer in model.quantizable_layers],
        3,
    )
    record = record_teacher(model, pictures=2, sampler=few_steps(family))
    settings = FinetuneSettings(
        steps=8, batch_size=2, rank=4, low_rank_rate=0.02, relation_weight=0.1, window=2,
        step_weights="sampler",
    )  # fmt: skip
    losses = finetune(
        model, calibration(family), plan, record, settings, QuantSettings(activation_bits=6)
    ).adapter.losses
    assert losses["task after"] < losses["task before"]


@pytest.mark.parametrize("family", NAMES)
def test_timesteps_of_a_window_can_share_one_call(family):
    record = record_teacher(denoiser(family), pictures=2, sampler=few_steps(family))
    network, pictures = denoiser(family).network, torch.tensor([1, 0])
    calls = [record.arguments(slot, pictures, "cpu") for slot in (0, 1)]
    with torch.no_grad():
        together = output_tensor(network(**joined_calls(record, calls)))
        each = torch.cat([output_tensor(network(**call)) for call in calls])
    torch.testing.assert_close(together, each, rtol=1e-3, atol=1e-4)


def test_guidance_in_two_calls_is_that_of_the_pipeline():
    """A Flux network that takes no guidance scale is asked twice, the second time with an empty prompt."""
    pipeline = text_pipeline("flux", guidance_embeds=False)
    model = make_denoiser(pipeline, FAMILIES["flux"], name="f", source="test", prompts=PROMPTS)
    assert model.sampler.guidance_scale == 1.0
    settings = few_steps("flux")
    samples = sample(model, labels=[0, 1], seeds=SEEDS, settings=settings, record="all")
    twice = {"true_cfg_scale": settings.guidance_scale, "negative_prompt": ["", ""]}
    expected = plain(text_pipeline("flux", guidance_embeds=False), "flux", **twice)
    np.testing.assert_array_equal(samples.images, np.round(expected * 255).astype(np.uint8))
    record = record_teacher(model, pictures=2, sampler=settings)
    assert record.guided
    with torch.no_grad():
        nothing = pipeline.encode_prompt(prompt=[""], prompt_2=None)[1]
    torch.testing.assert_close(record.conditioning["pooled_projections"][0, 0, 0], nothing[0])


def test_prompts_are_what_labels_number(tmp_path):
    folder = save_text_model(tmp_path / "m", "stable-diffusion")
    (folder / "prompts.json").write_text(json.dumps({"prompts": ["a dog", "two cats"]}))
    model = load_denoiser(folder)
    assert model.class_names == ("a dog", "two cats")
    samples = sample(model, labels=[1], seeds=[3], settings=few_steps("stable-diffusion"))
    expected = plain(text_pipeline("stable-diffusion"), "stable-diffusion", ["two cats"], [3])
    np.testing.assert_array_equal(samples.images, np.round(expected * 255).astype(np.uint8))
    with pytest.raises(SettingsError, match=r"must be in 0\.\.1, got 2"):
        sample(model, labels=[2], seeds=[3])
    (folder / "prompts.json").write_text('{"prompts": []}')
    with pytest.raises(LoadError, match="with 1 to 1000 lines of text"):
        load_denoiser(folder)
    with pytest.raises(SettingsError, match="at least one sentence"):
        with_prompts(model, [])


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(SettingsError, match="a PNDMScheduler takes no eta"):
        sample(
            denoiser("stable-diffusion"), labels=[0], seeds=[0],
            settings=SamplerSettings(num_inference_steps=2, eta=1.0),
        )  # fmt: skip
    original = save_text_model(tmp_path / "m", "stable-diffusion")

    def refused(sentence, damage):
        folder = shutil.copytree(original, tmp_path / "damaged")
        damage(folder)
        with pytest.raises(LoadError, match=sentence):
            load_denoiser(folder)
        shutil.rmtree(folder)

    def entry(name, value):
        def damage(folder):
            index = json.loads((folder / "model_index.json").read_text())
            (folder / "model_index.json").write_text(json.dumps({**index, name: value}))

        return damage

    refused("names no tokenizer", entry("tokenizer", [None, None]))
    refused(
        "the text_encoder of .* is a .*Evil.*; supported are CLIPTextModel",
        entry("text_encoder", ["evil", "Evil"]),
    )
    refused("parts of another pipeline, controlnet", entry("controlnet", ["diffusers", "ControlNetModel"]))
    refused("has no model.safetensors", lambda f: (f / "text_encoder" / "model.safetensors").unlink())
    refused("has no folder tokenizer", lambda f: shutil.rmtree(f / "tokenizer"))

    def link_out(folder):
        (tmp_path / "outside.json").write_text("{}")
        (folder / "tokenizer" / "extra.json").symlink_to(tmp_path / "outside.json")

    refused("leads out of the folder", link_out)
