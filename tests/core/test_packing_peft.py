"""LoRA adapters of peft on packed linear layers; runs where peft is installed."""

import sys

import pytest
import torch
from tiny_packed import exported

from mpqdm_core.errors import SettingsError
from mpqdm_core.packing import allow_lora, load_packed

NAME = "down_blocks.1.attentions.0.to_q"


def test_without_peft_it_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.tuners.lora.layer", None)
    with pytest.raises(SettingsError, match="merge the adapter before exporting"):
        allow_lora(object())


def test_an_adapter_adds_its_product_to_what_a_packed_layer_computes_and_is_never_merged(tmp_path):
    peft = pytest.importorskip("peft")
    network = load_packed(exported(tmp_path / "model")).denoiser.network
    packed = network.get_submodule(NAME)
    config = allow_lora(peft.LoraConfig(r=2, lora_alpha=6, target_modules=[NAME]))
    peft.inject_adapter_in_model(config, network)
    layer = network.get_submodule(NAME)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    packed.activation.clock.set(packed.activation.clock.timesteps[0])
    x = torch.randn(2, 5, packed.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        up.normal_(generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(layer(x), packed(x) + 6 / 2 * (x @ down.T @ up.T))
    with pytest.raises(SettingsError, match="cannot be merged into packed weights"):
        layer.merge()
