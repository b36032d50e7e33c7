"""Text-to-image models on the command line: prompts of one's own, and CLIP score."""

import json

import numpy as np
import pytest
from PIL import Image

from mpqdm_core.clip_score import clip_scores, load_clip
from mpqdm_core.command_line import main
from tests.core.tiny_clip import save_clip
from tests.core.tiny_models import tiny_pipeline
from tests.core.tiny_pipelines import save_text_model

PROMPTS = ("a red cat", "a blue boat")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    model = str(save_text_model(folder / "model", "stable-diffusion"))
    calibration = str(folder / "calibration")
    assert main(["calibrate", model, "--out", calibration, "--samples", "1", "--quiet"]) == 0
    plan = ["allocate", model, "--calibration", calibration, "--bits", "2", "--quiet"]
    assert main([*plan, "--out", str(folder / "plan.json")]) == 0
    save_clip(folder / "clip")
    return folder


def drawn(work, place, *prompts):
    assert (
        main(["sample", str(work / "model"), "--count", "2", "--quiet", "--out", str(place), *prompts]) == 0
    )
    return [np.asarray(Image.open(file)) for file in sorted(place.glob("*.png"))]


def test_prompts_take_turns(work, tmp_path):
    both = drawn(work, tmp_path / "both", "--prompts", *PROMPTS)
    alone = drawn(work, tmp_path / "alone", "--prompts", PROMPTS[1])
    np.testing.assert_array_equal(both[1], alone[1])
    assert (both[0] != alone[0]).any()


def test_pictures_of_other_prompts_are_not_mixed(work, tmp_path, capsys):
    drawn(work, tmp_path / "cats", "--prompts", PROMPTS[0])
    arguments = ["--count", "2", "--out", str(tmp_path / "cats"), "--prompts", PROMPTS[1]]
    assert main(["sample", str(work / "model"), *arguments, "--quiet"]) == 1
    assert "holds other pictures" in capsys.readouterr().err


def test_compare_scores_both_against_their_prompts(work, tmp_path, capsys):
    files = ["--calibration", str(work / "calibration"), "--plan", str(work / "plan.json")]
    asked = ["--count", "2", "--prompts", *PROMPTS, "--clip", str(work / "clip"), "--json", "--quiet"]
    assert main(["compare", str(work / "model"), *files, *asked]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    whole = np.stack(drawn(work, tmp_path / "whole", "--prompts", *PROMPTS))
    rounded = np.stack(drawn(work, tmp_path / "rounded", "--prompts", *PROMPTS, *files))
    judge = load_clip(work / "clip")
    for name, pictures in (("clip_score_full_precision", whole), ("clip_score", rounded)):
        scores = clip_scores(judge, pictures, PROMPTS)
        assert found[name]["mean"] == pytest.approx(scores.mean(), abs=1e-6)
    assert found["clip_score"] != found["clip_score_full_precision"]


def test_a_model_of_classes_has_no_clip_score(work, tmp_path, capsys):
    tiny_pipeline("class-conditional-ldm").save_pretrained(tmp_path / "classes")
    assert main(["compare", str(tmp_path / "classes"), "--clip", str(work / "clip"), "--quiet"]) == 1
    assert "--clip needs a text-to-image model" in capsys.readouterr().err
