import json

import pytest

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import LoadError
from mpqdm_core.folder_notes import SAMPLER_FILE, folder_sampler

FAMILY = SamplerSettings(num_inference_steps=20, guidance_scale=4.0, eta=0.5)


def said(folder, **values):
    (folder / SAMPLER_FILE).write_text(json.dumps(values))
    return folder


def test_a_folder_that_says_nothing_takes_the_familys_settings(tmp_path):
    assert folder_sampler(tmp_path, FAMILY, guided=True) is FAMILY


def test_what_the_folder_says_goes_before_the_family(tmp_path):
    found = folder_sampler(said(tmp_path, guidance_scale=2), FAMILY, guided=True)
    assert found == SamplerSettings(num_inference_steps=20, guidance_scale=2.0, eta=0.5)
    found = folder_sampler(said(tmp_path, num_inference_steps=7), FAMILY, guided=True)
    assert found == SamplerSettings(num_inference_steps=7, guidance_scale=4.0, eta=0.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"guidance_scale": "much"}, r"must be a number in \[0, 100\], got much"),
        ({"guidance_scale": True}, "must be a number"),
        ({"guidance_scale": -1}, "must be a number"),
        ({"guidance_scale": float("inf")}, "must be a number"),
        ({"guidance_scale": 10**400}, "got a huge number"),
        ({"num_inference_steps": 0}, r"must be a whole number in 1\.\.1000, got 0"),
        ({"num_inference_steps": 2.5}, "must be a whole number"),
        ({"num_inference_steps": True}, "must be a whole number"),
        ({"eta": 1.0}, "may say guidance_scale, num_inference_steps, found eta"),
    ],
)
def test_what_no_sampler_can_do_is_refused(tmp_path, values, sentence):
    with pytest.raises(LoadError, match=sentence):
        folder_sampler(said(tmp_path, **values), FAMILY, guided=True)


def test_an_unconditional_model_cannot_be_guided(tmp_path):
    plain = SamplerSettings(guidance_scale=1.0)
    assert folder_sampler(said(tmp_path, guidance_scale=1), plain, guided=False) == plain
    with pytest.raises(LoadError, match="must be 1 for a model without classes, got 3"):
        folder_sampler(said(tmp_path, guidance_scale=3), plain, guided=False)


def test_a_link_out_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "outside.json").write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    (model / SAMPLER_FILE).symlink_to(tmp_path / "outside.json")
    with pytest.raises(LoadError):
        folder_sampler(model, FAMILY, guided=True)
