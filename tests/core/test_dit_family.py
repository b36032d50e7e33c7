"""A tiny DiTPipeline through the whole way: load, calibrate, allocate, quantize, fine-tune, compare."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from tiny_models import tiny_vae

from mpqdm_core.allocation import AllocationSettings, allocate
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.finetune_run import finetune
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import decode, sample
from mpqdm_core.stored_weights import open_stored
from mpqdm_core.teacher import record_teacher
from mpqdm_core.trajectory import injected_predictions

NAMES = {0: "cat", 1: "house", 2: "tree"}
STEPS = SamplerSettings(num_inference_steps=3, guidance_scale=4.0)


def tiny_dit(learned_variance=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8 if learned_variance else 4,
            num_layers=2,
            sample_size=8,
            norm_num_groups=4,
        )
        vae = tiny_vae(shift_factor=None)
    scheduler = DDIMScheduler(clip_sample=False)
    return DiTPipeline(transformer, vae, scheduler, id2label={k: v for k, v in NAMES.items()})


@cache
def dit():
    return make_denoiser(tiny_dit(), FAMILIES["dit"], name="tiny-dit", source="test")


@cache
def calibration():
    return calibrate(dit(), CalibrationSettings(samples=3, batch_size=2, rows_per_step=8, sampler=STEPS))


def test_classes_layers_and_exemptions():
    denoiser = dit()
    assert denoiser.num_classes == 3 and denoiser.class_names == ("cat", "house", "tree")
    assert denoiser.component == "transformer" and denoiser.latent_shape == (4, 8, 8)
    exempt = {layer.name: layer.exempt for layer in denoiser.exempt_layers}
    assert exempt["pos_embed.proj"] == exempt["proj_out_2"] == "8-bit"
    assert "transformer_blocks.0.attn1.to_q" in {layer.name for layer in denoiser.quantizable_layers}


@pytest.mark.parametrize("learned_variance", [False, True])
def test_pictures_are_those_of_the_pipeline_and_do_not_depend_on_the_batch(learned_variance):
    pipeline = tiny_dit(learned_variance)
    denoiser = make_denoiser(pipeline, FAMILIES["dit"], name="d", source="test")
    drawn = sample(denoiser, labels=[0, 2], seeds=[5, 6], settings=STEPS, record="all")
    expected = pipeline(
        [2], generator=torch.Generator().manual_seed(6), num_inference_steps=3, guidance_scale=4.0,
        output_type="np",
    ).images  # fmt: skip
    np.testing.assert_allclose(drawn.images[1] / 255, expected[0], atol=0.51 / 255 + 1e-4)
    assert drawn.trajectory.shape == (3, 2, 4, 8, 8)
    np.testing.assert_array_equal(decode(denoiser, drawn.latents), drawn.images)


def test_predictions_on_the_reference_are_those_that_were_recorded():
    reference = sample(dit(), labels=[0, 1], seeds=[1, 2], settings=STEPS, record="all")
    np.testing.assert_allclose(injected_predictions(dit(), reference), reference.predictions, atol=2e-4)


def test_the_teachers_record_has_the_unconditional_half_first():
    record = record_teacher(dit(), pictures=3, sampler=STEPS)
    assert record.guided and record.sample_name == "hidden_states"
    assert record.conditioning["class_labels"][0].tolist() == [[1000, 0], [1000, 1], [1000, 2]]
    assert record.feature.shape[3:] == (16, 4, 4)  # sixteen channels, four by four patches
    rows = record.arguments(1, torch.tensor([2]), "cpu")
    with torch.no_grad():
        again = dit().network(
            rows["hidden_states"], timestep=rows["timestep"].expand(2), class_labels=rows["class_labels"]
        ).sample  # fmt: skip
    torch.testing.assert_close(again, record.prediction[1, 2], rtol=1e-3, atol=1e-4)


def test_the_whole_way():
    denoiser = dit()
    settings = QuantSettings(activation_bits=6)
    rows = RowSettings(images_per_step=2, positions=4)
    table = measure_error_table(denoiser, calibration(), settings, rows=rows)
    plan = allocate(table, AllocationSettings(policy="optimal", average_bits=3.0)).plan
    student = quantize(denoiser, calibration(), plan, settings)
    drawn = sample(student.denoiser, labels=[1], seeds=[3], settings=STEPS)
    assert drawn.images.shape == (1, 8, 8, 3)
    record = record_teacher(denoiser, pictures=4, sampler=STEPS)
    run = FinetuneSettings(steps=20, batch_size=4, rank=4, low_rank_rate=0.02, task_on="guided",
                           relation_weight=0.1, window=2)  # fmt: skip
    losses = finetune(denoiser, calibration(), plan, record, run, settings).adapter.losses
    assert losses["task after"] < losses["task before"]


def test_a_saved_folder_is_loaded_and_looked_at(tmp_path):
    tiny_dit().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["id2label"] = {str(k): v for k, v in NAMES.items()}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    loaded = load_denoiser(tmp_path)
    assert loaded.content_hash == dit().content_hash and loaded.class_names == dit().class_names
    stored = open_stored(tmp_path)
    assert {layer.name for layer in stored.layers} == {layer.name for layer in loaded.layers}
    assert {layer.name for layer in stored.quantizable_layers} == {
        layer.name for layer in loaded.quantizable_layers
    }


def test_what_it_cannot_do_gets_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match="takes no eta"):
        sample(dit(), labels=[0], seeds=[0], settings=SamplerSettings(num_inference_steps=2, eta=1.0))
    tiny_dit().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "transformer" / "config.json").read_text())
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(LoadError, match="the two must come from one model"):
        load_denoiser(tmp_path)
