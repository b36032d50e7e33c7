"""LoRA adapters of peft on packed layers; runs where peft is installed."""

import sys

import pytest
import torch
from tiny_packed import exported

from mpqdm_core.errors import SettingsError
from mpqdm_core.packing import allow_lora, load_packed

TARGETS = {"down_blocks.1.attentions.0.to_q": "linear", "down_blocks.0.resnets.0.conv1": "conv"}


def test_without_peft_it_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.tuners.lora.layer", None)
    with pytest.raises(SettingsError, match="merge the adapter before exporting"):
        allow_lora(object())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A loaded packed network with adapters, the packed layers from before, and peft."""
    peft = pytest.importorskip("peft")
    network = load_packed(exported(tmp_path_factory.mktemp("packed") / "model")).denoiser.network
    packed = {name: network.get_submodule(name) for name in TARGETS}
    config = allow_lora(peft.LoraConfig(r=2, lora_alpha=6, target_modules=list(TARGETS)))
    peft.inject_adapter_in_model(config, network)
    return network, packed


def test_an_adapter_adds_its_product_to_what_a_packed_layer_computes(adapted):
    network, packed = adapted
    for name, kind in TARGETS.items():
        layer = network.get_submodule(name)
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            up.normal_(generator=torch.Generator().manual_seed(1))
            width = packed[name].in_features if kind == "linear" else packed[name].in_channels
            x = torch.randn((2, 5, width) if kind == "linear" else (2, width, 6, 6))
            if kind == "linear":
                added = x @ down.T @ up.T
            else:
                delta = (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
                added = torch.nn.functional.conv2d(x, delta, padding=1)
            torch.testing.assert_close(layer(x), packed[name](x) + 6 / 2 * added)


def test_an_adapter_cannot_be_merged_into_packed_weights(adapted):
    with pytest.raises(SettingsError, match="cannot be merged into packed weights"):
        adapted[0].get_submodule("down_blocks.1.attentions.0.to_q").merge()
