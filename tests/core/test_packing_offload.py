"""Packed models under accelerate: weights wait elsewhere between calls; runs where it is installed."""

import pytest
import torch
from diffusers import UNet2DModel
from tiny_packed import exported

from mpqdm_core.errors import SettingsError
from mpqdm_core.packing import load_packed, set_mode

accelerate = pytest.importorskip("accelerate", reason="install accelerate, see requirements-peers.txt")
LAYER = "down_blocks.0.resnets.0.conv1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("packed") / "model", scale_dtype="float16")


@pytest.fixture(scope="module")
def output(folder):
    return run(load_packed(folder).denoiser.network)


def run(network, timestep=0):
    picture = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return network(picture, torch.tensor([timestep]), class_labels=torch.tensor([1])).sample


def stored(network):
    layer = network.get_submodule(LAYER)
    return layer.weight_packed, layer.weight_scale, layer.weight_map, layer.activation.scale


@pytest.mark.parametrize("mode", ["packed", "frozen"])
def test_offloaded_to_memory(folder, output, mode):
    network = load_packed(folder, mode=mode, cache_mib=0).denoiser.network
    network = accelerate.cpu_offload(network, execution_device=torch.device("cpu"), offload_buffers=True)
    assert all(tensor.is_meta for tensor in stored(network))
    assert torch.equal(run(network), output)
    assert all(tensor.is_meta for tensor in stored(network))
    last = network.get_submodule(LAYER).activation.clock.timesteps[-1]
    assert torch.equal(run(network, last), run(load_packed(folder).denoiser.network, last))


def test_dispatched_to_memory_and_disk(folder, output, tmp_path):
    network = load_packed(folder).denoiser.network
    places = {name: "disk" if "blocks" in name else "cpu" for name, _ in network.named_children()}
    network = accelerate.dispatch_model(network, places, offload_dir=tmp_path, offload_buffers=True)
    assert all(tensor.is_meta for tensor in stored(network)) and list(tmp_path.iterdir())
    assert not network.conv_in.weight_packed.is_meta
    assert torch.equal(run(network), output)


def test_an_offloaded_model_can_be_frozen_only_before(folder, output):
    network = accelerate.cpu_offload(
        load_packed(folder).denoiser.network, execution_device=torch.device("cpu"), offload_buffers=True
    )
    with pytest.raises(SettingsError, match="freeze the model before offloading it"):
        set_mode(network, "frozen")
    assert torch.equal(run(network), output)


def test_from_pretrained_with_a_device_map(folder, output):
    network = UNet2DModel.from_pretrained(folder / "unet", device_map={"": "cpu"})
    assert torch.equal(run(network), output)


def test_from_pretrained_straight_to_the_disk_says_what_to_do(folder, tmp_path):
    places = {"": "cpu", "mid_block": "disk"}
    with pytest.raises(SettingsError, match=r"offload it with accelerate\.dispatch_model then"):
        UNet2DModel.from_pretrained(folder / "unet", device_map=places, offload_folder=tmp_path)
