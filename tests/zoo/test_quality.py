import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from mpqdm_core.errors import SettingsError, ShapeError
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.captions import asked_for
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import agreement, ask, encode_real, measure_quality, recognise

SCENES = [sprites.attributes(12, index) for index in range(50)]
PICTURES = np.stack([sprites.render(scene) for scene in SCENES])


def pixel_model(side=32):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=side, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, attention_head_dim=8,
    )  # fmt: skip
    pipeline = DDIMPipeline(unet, DDIMScheduler())
    return make_denoiser(pipeline, FAMILIES["ddpm"], name="tiny", source="test")


def test_real_pictures_show_what_their_captions_name():
    asked = [asked_for(scene.caption) for scene in SCENES]
    assert agreement(PICTURES, asked).mean() >= 0.98


def test_every_attribute_that_is_named_must_be_seen():
    scene = next(scene for scene in SCENES if scene.colour == "red" and scene.kind != "star")
    picture = PICTURES[SCENES.index(scene)][None]
    right = asked_for(scene.caption)
    assert agreement(picture, [right]).tolist() == [True]
    for attribute, wrong in (("kind", "star"), ("colour", "teal"), ("background", "nowhere")):
        assert agreement(picture, [{**right, attribute: (wrong,)}]).tolist() == [False]
        assert agreement(picture, [{attribute: (wrong, *right[attribute])}]).tolist() == [True]
    assert agreement(picture, [{}]).tolist() == [True]  # nothing asked, nothing missed


def test_half_pictures_are_recognised():
    kinds = recognise(sprites.halved(PICTURES))["kind"]
    assert np.mean([kind == scene.kind for kind, scene in zip(kinds, SCENES, strict=True)]) >= 0.95


def test_the_encoder_reads_halves_of_plain_pictures_as_plain_pictures():
    whole = torch.tensor((0.1, -0.5, 0.9)).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    half = load_encoder()(whole[..., ::2, ::2])
    torch.testing.assert_close(half.features, load_encoder()(whole).features)
    with pytest.raises(ShapeError, match=r"or half as wide, got \(1, 3, 16, 16\)"):
        load_encoder()(whole[..., :16, :16])


def test_an_unconditional_model_is_judged_by_distance_and_precision():
    quality = measure_quality(pixel_model(), samples=8, accuracy_samples=8)
    assert quality.class_accuracy is None and quality.caption_agreement is None
    assert (quality.precision.name, quality.precision.n, quality.precision.n_reference) == ("precision", 8, 8)
    assert quality.fid.value > 3 * quality.fid_of_real.value  # noise is no sprite


def test_real_pictures_have_a_side_that_models_have():
    assert len(encode_real(2, side=32)) == 2
    with pytest.raises(SettingsError, match="64 or 32 pixels wide, got 48"):
        encode_real(2, side=48)


def test_nothing_is_asked_of_an_unconditional_model():
    questions = ask(pixel_model(), 3)
    assert (questions.labels, questions.asked) == (None, ({}, {}, {}))


def test_more_accuracy_samples_than_samples_are_refused():
    with pytest.raises(SettingsError, match="samples >= accuracy_samples, got 4 and 5"):
        measure_quality(pixel_model(), samples=4, accuracy_samples=5)
