"""Packed folders that cannot be read: one sentence each, that says what and what to do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_packed import WEIGHTS, exported

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.packing import inspect_packed, load_packed, read_manifest
from mpqdm_core.packing.manifest import hash_tensors


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("packed") / "model")


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "model")


def rewrite(folder, change_manifest=None, change_tensors=None):
    """Change a file; its hash is that of the changed tensors, so that other checks are reached."""
    path = folder / WEIGHTS
    manifest, tensors = manifest_of(path), load_file(path)
    if change_tensors is not None:
        change_tensors(tensors)
        manifest["tensors_sha256"] = hash_tensors(tensors)
    if change_manifest is not None:
        change_manifest(manifest)
    save_file(tensors, path, metadata={"format": "pt", "mpqdm": json.dumps(manifest)})


def manifest_of(path):
    return json.loads(path.with_name("mpqdm.json").read_text())


def refused(folder):
    with pytest.raises(LoadError) as caught:
        load_packed(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_that_is_not_there():
    assert refused("/nowhere/model") == "there is no folder /nowhere/model"


def test_a_folder_without_an_index(folder):
    (folder / "model_index.json").unlink()
    assert "has no model_index.json" in refused(folder)


def test_another_pipeline(folder):
    (folder / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}')
    assert "holds a KolorsPipeline; supported are" in refused(folder)


def test_a_text_to_image_pipeline_with_a_denoiser_of_another_kind(folder):
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert refused(folder).endswith("is unet, which its pipeline does not have")


def test_another_network(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet3DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "supported are diffusers' UNet2DModel" in refused(folder)


def test_a_denoiser_in_another_place(folder):
    (folder / "unet").rename(folder / "transformer")
    assert "unet/diffusion_pytorch_model.safetensors cannot be read: No such file" in refused(folder)


def test_a_full_precision_model(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    del config["quantization_config"]
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    assert "holds no packed denoiser; write one with export_packed" in refused(folder)


def test_weights_without_a_manifest(folder):
    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    assert "is not a packed model of format mpqdm-packed" in refused(folder)


def test_a_newer_version(folder):
    rewrite(folder, lambda manifest: manifest.update(version=2))
    assert "is a packed model of format 2, this version reads up to 1: update" in refused(folder)


def test_a_file_cut_short(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-100])
    assert "is cut short" in refused(folder)


def test_a_flipped_bit(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))
    assert "are not those its manifest describes; copy or export it again" in refused(folder)


def test_no_weights_at_all(folder):
    (folder / WEIGHTS).unlink()
    assert "cannot be read: No such file" in refused(folder)


@pytest.mark.parametrize("entry", ["layers", "plan", "settings", "timesteps", "bit_report", "model"])
def test_a_manifest_that_misses_an_entry(folder, entry):
    rewrite(folder, lambda manifest: manifest.pop(entry))
    assert f"is damaged (KeyError('{entry}'))" in refused(folder)


def test_bits_that_are_not_the_plans(folder):
    def change(manifest):
        layer = next(entry for entry in manifest["layers"] if "bits" in entry)
        layer["bits"] = layer["bits"][1:] + layer["bits"][0]

    rewrite(folder, change)
    assert "the bits are not those of the plan's hash" in refused(folder)


def test_a_channel_map_that_is_not_the_plans(folder):
    def change(tensors):
        name = "down_blocks.0.resnets.0.conv1.weight_packed"
        steps = len(manifest_of(folder / WEIGHTS)["timesteps"])
        packed = tensors[name].clone()
        last_of_map = len(packed) - steps - 1
        packed[last_of_map] = packed[last_of_map].flip(0) ^ 0b00000001
        tensors[name] = packed

    rewrite(folder, change_tensors=change)
    text = refused(folder)
    assert "conv1 in" in text and ("is damaged: the channel map counts" in text or "of its plan" in text)


def test_a_missing_tensor(folder):
    rewrite(folder, change_tensors=lambda tensors: tensors.pop("conv_in.scales"))
    assert "misses conv_in.scales; export the model again" in refused(folder)


def test_a_tensor_nobody_knows(folder):
    rewrite(folder, change_tensors=lambda tensors: tensors.update(extra=torch.zeros(1)))
    assert "has tensors the network does not know, extra" in refused(folder)


def test_a_wrong_shape(folder):
    rewrite(folder, change_tensors=lambda tensors: tensors.update({"conv_in.scales": torch.zeros(3)}))
    assert "conv_in.scales has shape [3], expected [" in refused(folder)


def test_a_wrong_type(folder):
    def change(tensors):
        tensors["conv_in.scales"] = tensors["conv_in.scales"].double()

    rewrite(folder, change_tensors=change)
    assert "conv_in.scales has a wrong type, torch.float64" in refused(folder)


def test_a_configuration_of_another_model(folder):
    config = json.loads((folder / "unet" / "config.json").read_text())
    config["block_out_channels"] = [16, 32]
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    assert "config.json and weights must come from one model" in refused(folder)


def test_a_damaged_vae(folder):
    path = folder / "vae" / WEIGHTS.name
    path.write_bytes(path.read_bytes()[:-8])
    assert "is cut short" in refused(folder)


def test_a_folder_without_a_schedule(folder):
    shutil.rmtree(folder / "scheduler")
    assert "has no scheduler/scheduler_config.json" in refused(folder)


def test_a_damaged_schedule(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"num_train_timesteps": "many"}')
    assert "cannot be built" in refused(folder)


def test_settings_of_loading_that_do_not_exist(folder):
    with pytest.raises(SettingsError, match="mode must be one of packed, frozen, got 'warm'"):
        load_packed(folder, mode="warm")
    with pytest.raises(SettingsError, match="cache_mib must be 0 or more, got -1"):
        load_packed(folder, cache_mib=-1)


def test_looking_at_what_is_no_packed_model(folder):
    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(LoadError, match="is not a packed model of format mpqdm-packed"):
        inspect_packed(folder)


def test_the_manifest_alone_can_be_read(folder):
    manifest = read_manifest(folder / WEIGHTS)
    assert manifest.name == "small" and manifest.scale_dtype == "float32"
