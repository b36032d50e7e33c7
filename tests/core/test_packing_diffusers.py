"""Packed models through diffusers' own doors: from_pretrained, save_pretrained, the quantization config."""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.quantizers.auto import DiffusersAutoQuantizer
from diffusers.utils import is_accelerate_available
from safetensors.torch import load_file
from tiny_packed import WEIGHTS, draw, exported, mixed

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.packing import PackedConfig, PackedLayer, load_packed, register
from mpqdm_core.packing.diffusers_quantizer import PackedQuantizer
from mpqdm_core.packing.registration import build
from mpqdm_core.pipelines import ClassConditionalLDMPipeline

INPUTS = {"timestep": torch.tensor([0]), "class_labels": torch.tensor([1])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("packed") / "model", scale_dtype="float16")


@pytest.fixture(scope="module")
def output(folder):
    with torch.no_grad():
        return load_packed(folder).denoiser.network(picture(), **INPUTS).sample


def picture():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def run(network, dtype=torch.float32):
    with torch.no_grad():
        return network(picture().to(dtype), **INPUTS).sample


@pytest.mark.parametrize("way", ["positional", "keyword", "subfolder"])
def test_from_pretrained_of_the_denoiser(folder, output, way):
    calls = {
        "positional": lambda: UNet2DModel.from_pretrained(folder / "unet"),
        "keyword": lambda: UNet2DModel.from_pretrained(pretrained_model_name_or_path=folder / "unet"),
        "subfolder": lambda: UNet2DModel.from_pretrained(folder, subfolder="unet"),
    }
    network = calls[way]()
    assert type(network) is UNet2DModel and not network.training
    assert isinstance(network.down_blocks[0].resnets[0].conv1, PackedLayer)
    assert torch.equal(run(network), output)


def test_from_pretrained_of_the_pipeline_draws_the_same_pictures(folder):
    pipeline = ClassConditionalLDMPipeline.from_pretrained(folder)
    loaded = load_packed(folder)
    through_diffusers = loaded.denoiser.with_network(pipeline.unet, content_hash="same")
    pictures = draw(replace(loaded, denoiser=through_diffusers)).images
    assert np.array_equal(pictures, draw(loaded).images)


def test_save_pretrained_writes_the_same_tensors_again(folder, tmp_path, output):
    ClassConditionalLDMPipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    again = load_packed(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).stat().st_size == (folder / WEIGHTS).stat().st_size
    assert again.content_hash == load_packed(folder).content_hash
    assert torch.equal(run(again.denoiser.network), output)
    assert torch.equal(run(UNet2DModel.from_pretrained(tmp_path / "again" / "unet")), output)


def test_the_ranges_follow_the_timestep(folder):
    network = UNet2DModel.from_pretrained(folder / "unet")
    clock = network.conv_in.activation.clock
    assert clock.timesteps == mixed().layers["conv_in"].activation.clock.timesteps
    for slot, timestep in enumerate(clock.timesteps):
        with torch.no_grad():
            network(picture(), torch.tensor(timestep), class_labels=INPUTS["class_labels"])
        assert clock.slot == slot


def test_another_type_for_the_arithmetic_leaves_the_tables_alone(folder):
    network = UNet2DModel.from_pretrained(folder / "unet", torch_dtype=torch.bfloat16)
    layer, exact = network.mid_block.resnets[0].conv1, UNet2DModel.from_pretrained(folder / "unet")
    reference = exact.mid_block.resnets[0].conv1
    assert network.dtype == run(network, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(layer.weight_scale, reference.weight_scale)
    assert torch.equal(layer.activation.scale, reference.activation.scale)
    assert torch.equal(layer.quantized_weight(), reference.quantized_weight().bfloat16())
    assert layer.bias.dtype == torch.bfloat16


def test_loading_info_is_given_when_asked_for(folder):
    _, info = UNet2DModel.from_pretrained(folder / "unet", output_loading_info=True)
    assert not any(info.values())


def test_other_models_are_loaded_as_before(tmp_path, output):
    network = mixed().denoiser.pipeline.vae
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path, low_cpu_mem_usage=False)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_registering_twice_changes_nothing():
    before = UNet2DModel.from_pretrained.__func__
    register()
    assert UNet2DModel.from_pretrained.__func__ is before


def test_the_config_goes_to_json_and_back():
    config = PackedConfig(mode="frozen", cache_mib=7)
    entries = json.loads(config.to_json_string())
    assert entries == {"quant_method": "mpqdm", "format_version": 1, "mode": "frozen", "cache_mib": 7}
    again = DiffusersAutoQuantizer.from_dict(entries)
    assert isinstance(again, PackedConfig) and again.to_dict() == config.to_dict()
    assert isinstance(DiffusersAutoQuantizer.from_config(entries), PackedQuantizer)


def test_a_config_can_freeze_a_model_when_it_is_loaded(folder, tmp_path, output):
    network = UNet2DModel.from_pretrained(folder / "unet")
    network.config["quantization_config"].mode = "frozen"
    network.save_pretrained(tmp_path)
    frozen = UNet2DModel.from_pretrained(tmp_path)
    assert frozen.conv_in.mode == "frozen" and torch.equal(run(frozen), output)


def test_a_config_refuses_what_it_cannot_mean():
    with pytest.raises(SettingsError, match="mode must be one of packed, frozen, got 'warm'"):
        PackedConfig(mode="warm")
    with pytest.raises(LoadError, match="packed model of format 2, this version reads up to 1"):
        PackedConfig(format_version=2)
    with pytest.raises(ValueError, match="require the model to be pre-quantized"):
        PackedQuantizer(PackedConfig(), pre_quantized=False)


@pytest.mark.skipif(is_accelerate_available(), reason="diffusers then takes its own way")
def test_without_accelerate_the_hub_needs_it():
    with pytest.raises(ImportError, match="install accelerate, or download the folder"):
        PackedQuantizer(PackedConfig()).validate_environment()


def test_the_steps_diffusers_takes_with_accelerate(folder, output):
    """The calls of diffusers' own loader in its order; that loader needs accelerate."""
    config = UNet2DModel.load_config(folder / "unet")
    quantizer = DiffusersAutoQuantizer.from_config(config["quantization_config"], pre_quantized=True)
    tensors = load_file(folder / WEIGHTS)
    names = quantizer.maybe_update_loaded_keys(list(tensors), [str(folder / WEIGHTS)])
    network = build(UNet2DModel, config, quantizer.preprocess_model)
    assert set(names) == set(network.state_dict())
    state = quantizer.maybe_update_state_dict(tensors)
    for name, value in state.items():
        if quantizer.check_if_quantized_param(network, value, name, state):
            quantizer.create_quantized_param(network, value.half(), name, "cpu", state, [])
        else:
            owner, _, kind = name.rpartition(".")
            setattr(network.get_submodule(owner), kind, torch.nn.Parameter(value, requires_grad=False))
    quantizer.postprocess_model(network)
    assert torch.equal(run(network.eval()), output)


def test_copies_and_pickles_compute_the_same(folder, output):
    network = load_packed(folder).denoiser.network
    assert torch.equal(run(copy.deepcopy(network)), output)
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(run(again), output)


def test_a_fresh_process_needs_one_import_only(folder):
    code = (
        "import mpqdm_core.packing, sys\n"
        "from diffusers import UNet2DModel\n"
        "network = UNet2DModel.from_pretrained(sys.argv[1])\n"
        "assert type(network.conv_in).__name__ == 'PackedConv2d'"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "unet")], check=True, timeout=120)
