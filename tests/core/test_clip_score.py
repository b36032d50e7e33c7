"""CLIP scores; the oracle is the two towers as transformers loads them separately, and numpy between them."""

import numpy as np
import pytest
import torch
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from mpqdm_core.clip_score import clip_scores, load_clip
from mpqdm_core.errors import DataError, LoadError, ShapeError
from tests.core.tiny_clip import DEVIATION, MEAN, SIDE, save_clip

PROMPTS = ["a red star", "a cat", "a blue boat on a pink background"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def by_the_towers(folder, images, prompts):
    vision = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    text = CLIPTextModelWithProjection.from_pretrained(folder).eval()
    pixels = (images / 255 - MEAN) / DEVIATION
    tokenizer = load_clip(folder).processor.tokenizer
    scores = []
    with torch.no_grad():
        for picture, prompt in zip(pixels, prompts, strict=True):
            a = vision(torch.tensor(picture).permute(2, 0, 1)[None].float()).image_embeds[0].numpy()
            b = text(**tokenizer([prompt], return_tensors="pt")).text_embeds[0].numpy()
            scores.append(100 * max(0.0, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
    return scores


def test_scores_are_those_of_the_two_towers(folder, images):
    prompts = [PROMPTS[i % 3] for i in range(12)]
    pictures = np.concatenate([images, images[::-1], 255 - images, images // 2])
    expected = by_the_towers(folder, pictures, prompts)
    assert max(expected) > 1.0  # not all of them negative
    found = clip_scores(load_clip(folder), pictures, prompts, batch_size=5)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_picture_without_its_prompt_is_refused(folder, images):
    judge = load_clip(folder)
    with pytest.raises(ShapeError, match=r"with a prompt each, got \(3, 16, 16, 3\) and 2"):
        clip_scores(judge, images, PROMPTS[:2])
    with pytest.raises(DataError, match="no pictures"):
        clip_scores(judge, images[:0], [])


def test_what_is_no_clip_model_is_said(tmp_path):
    with pytest.raises(LoadError, match="is no CLIP model that can be read"):
        load_clip(tmp_path)
    with pytest.raises(LoadError, match="is no model of the Hub"):
        load_clip("no/such/folder")
