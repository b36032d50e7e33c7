"""The models that ship, loaded and drawn by diffusers alone, in a process that cannot find this project."""

import json
import subprocess
import sys

import pytest

from mpqdm_core.bundled import BUNDLED_FOLDER, bundled_models

DRAW = """
import json, sys, warnings
warnings.simplefilter("ignore")
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], use_safetensors=True)
pipeline.set_progress_bar_config(disable=True)
images = pipeline(**json.loads(sys.argv[2]), num_inference_steps=2, output_type="np").images
found = [type(pipeline).__name__, list(images.shape), "mpqdm_core" in sys.modules]
print(json.dumps(found))
"""
STOCK = {
    "sprites-t2i": ("StableDiffusionPipeline", {"prompt": ["a red star", "a blue boat"]}, 64),
    "sprites-dit": ("DiTPipeline", {"class_labels": [0, 7]}, 64),
    "sprites-ddpm": ("DDPMPipeline", {"batch_size": 2}, 32),
}


def test_every_model_that_ships_is_of_a_stock_pipeline_or_known_not_to_be():
    assert {card.name for card in bundled_models()} == {
        *STOCK,
        "sprites-ldm",
    }  # its pipeline is this project's
    assert all(card.size_mb < 25 for card in bundled_models())


@pytest.mark.parametrize("name", STOCK)
def test_plain_diffusers_loads_and_draws_it(name, tmp_path):
    pipeline, asked, side = STOCK[name]
    command = [sys.executable, "-I", "-c", DRAW, str(BUNDLED_FOLDER / name), json.dumps(asked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [pipeline, [2, side, side, 3], False]
