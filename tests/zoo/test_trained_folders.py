"""A few steps of each training with tiny networks; the oracle is plain diffusers on the written folder."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DiffusionPipeline, DiTPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from mpqdm_core.bundled import bundled_models
from mpqdm_core.dit_family import NULL_CLASS
from mpqdm_core.loading import load_denoiser
from mpqdm_core.sampling import sample, to_uint8
from mpqdm_core.zoo import sprites, train_ddpm, train_dit, train_t2i
from mpqdm_core.zoo.denoiser_training import train
from mpqdm_core.zoo.latents import encode_sprites
from mpqdm_core.zoo.model_folder import load_autoencoder, write_model
from mpqdm_core.zoo.train_autoencoder import TRAIN_STREAM
from mpqdm_core.zoo.training import RunFolder

STEPS = 2
COMMON = {"steps": STEPS, "batch_size": 4, "pictures": 6, "learning_rate": 0.01, "warmup": 1}


@pytest.fixture(scope="module")
def vae():
    return load_autoencoder()


@pytest.fixture(scope="module")
def latents(vae, tmp_path_factory):
    return encode_sprites(vae, tmp_path_factory.mktemp("latents"), TRAIN_STREAM, COMMON["pictures"])


def trained(root, name, settings, trainee, assemble, **written):
    """Train and write assets of one model under `root`; returns the pipeline that was written."""
    run = RunFolder(root / f"run-{name}")
    pipeline = assemble(train(settings, run, trainee, minutes=5, workers=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own, about saving
        write_model(pipeline, root / name, run=run, settings=settings, **written)
    return pipeline


@pytest.fixture(scope="module")
def models(vae, latents, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    dit = train_dit.DiTSettings(**COMMON, layers=1, heads=2, head_channels=16)
    trained(
        root, "sprites-dit", dit, train_dit.trainee(dit, vae, latents),
        lambda network: train_dit.assemble(network, vae), sampler=train_dit.SAMPLER, half=["transformer"],
    )  # fmt: skip
    t2i = train_t2i.TextToImageSettings(
        **COMMON,
        block_out_channels=(16, 32),
        head_channels=8,
        text_width=16,
        text_layers=1,
        text_heads=2,
        start="",
    )
    trained(
        root, "sprites-t2i", t2i, train_t2i.trainee(t2i, vae, latents),
        lambda networks: train_t2i.assemble(networks, vae), sampler=train_t2i.SAMPLER,
        prompts=train_t2i.prompts(),
    )  # fmt: skip
    ddpm = train_ddpm.PixelSettings(**COMMON, block_out_channels=(8, 16, 16), head_channels=8)
    pixels = train_ddpm.half_sprites(range(6))["pixels"]
    trained(
        root, "sprites-ddpm", ddpm, train_ddpm.trainee(ddpm, pixels),
        lambda network: DDPMPipeline(network, train_ddpm.build_scheduler()), sampler=train_ddpm.SAMPLER,
    )  # fmt: skip
    return root


@pytest.mark.parametrize(
    ("name", "cls"),
    [("sprites-dit", DiTPipeline), ("sprites-t2i", StableDiffusionPipeline), ("sprites-ddpm", DDPMPipeline)],
)
def test_plain_diffusers_loads_each_in_float32_without_a_warning(models, name, cls, caplog):
    pipeline = DiffusionPipeline.from_pretrained(
        models / name, local_files_only=True, low_cpu_mem_usage=False
    )  # True, the default, warns where accelerate is missing
    assert type(pipeline) is cls
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # The keys of JSON are strings: every DiT folder, DiT-XL/2's own too, is told so by diffusers.
    assert [text for text in warned if "id2label" not in text] == []


def plain(folder, steps, seeds, scale, **asked):
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return to_uint8(
        pipeline(
            **asked, generator=generators, num_inference_steps=steps, guidance_scale=scale, output_type="np"
        ).images
    )


def test_the_transformer_is_drawn_as_plain_diffusers_draws_it(models):
    denoiser = load_denoiser("sprites-dit", bundled=models)
    assert denoiser.class_names == sprites.KINDS
    assert denoiser.sampler == train_dit.SAMPLER
    drawn = sample(denoiser, labels=[0, 7], seeds=[3, 4]).images
    wanted = plain(models / "sprites-dit", 20, [3, 4], 1.5, class_labels=[0, 7])
    assert np.abs(drawn.astype(int) - wanted).max() <= 1


def test_the_text_model_is_drawn_as_plain_diffusers_draws_it(models):
    denoiser = load_denoiser("sprites-t2i", bundled=models)
    assert denoiser.class_names == train_t2i.prompts()
    assert denoiser.class_names[0] == "a small red star on a blue background"
    assert denoiser.sampler == train_t2i.SAMPLER
    drawn = sample(denoiser, labels=[0], seeds=[3]).images
    wanted = plain(models / "sprites-t2i", 20, [3], 2.0, prompt=[denoiser.class_names[0]])
    assert np.abs(drawn.astype(int) - wanted).max() <= 1


def test_the_pixel_model_draws_small_pictures_unasked(models):
    denoiser = load_denoiser("sprites-ddpm", bundled=models)
    assert denoiser.num_classes is None
    assert sample(denoiser, labels=None, seeds=[3]).images.shape == (1, 32, 32, 3)


def test_each_is_listed_with_its_card_and_its_training(models):
    cards = {card.name: card for card in bundled_models(models)}
    assert sorted(cards) == ["sprites-ddpm", "sprites-dit", "sprites-t2i"]
    for name, card in cards.items():
        assert card.title == name
        # a part that was loaded, the autoencoder, does not say from where
        assert not [path for path in card.folder.rglob("*.json") if "_name_or_path" in path.read_text()]
        assert "small enough for two CPU cores" in card.description
        text = (card.folder / "README.md").read_text()
        assert "$" not in text and f"of {STEPS} planned steps" in text
        training = json.loads((card.folder / "training.json").read_text())
        assert (training["steps"], training["seed"]) == (STEPS, 0)
        assert "CPU cores" in training["device"] and training["device"] in text


def test_the_tables_of_the_transformer_hold_classes_in_use_alone(models):
    weights = load_file(models / "sprites-dit" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    table = weights["transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"]
    used = set(table.abs().sum(dim=1).nonzero().flatten().tolist())
    assert used == {*range(len(sprites.KINDS)), NULL_CLASS}


def test_prepared_pictures_are_made_once(vae, latents, tmp_path):
    first = encode_sprites(vae, tmp_path, TRAIN_STREAM, 3)
    again = encode_sprites(None, tmp_path, TRAIN_STREAM, 3)  # nothing left to encode
    assert torch.equal(first.mean, again.mean) and torch.equal(first.mean, latents.mean[:3])
    assert first.labels.tolist() == [sprites.attributes(TRAIN_STREAM, index).label for index in range(3)]


def test_half_pictures_are_means_of_four_pixels():
    whole, _ = sprites.batch(1, range(2))
    halves = sprites.halved(whole)
    by_hand = whole[1, 10:12, 20:22, 2].astype(float).mean()
    assert halves.shape == (2, 32, 32, 3)
    assert halves[1, 5, 10, 2] == round(by_hand)
