"""Layers listed without computing are those that a real forward pass finds."""

from copy import deepcopy

import pytest
import torch
from tiny_pipelines import MAKERS, text_pipeline
from tiny_quant import small_denoiser
from torch import nn

from mpqdm_core.denoiser import describe_layers
from mpqdm_core.families import FAMILIES
from mpqdm_core.weightless import list_layers, weightless_twin


def network_of(name):
    if name == "class-conditional-ldm":
        return deepcopy(small_denoiser().network)  # others use it too
    return getattr(text_pipeline(name), FAMILIES[name].component)


@pytest.mark.parametrize("name", [*MAKERS, "class-conditional-ldm"])
def test_the_twin_says_what_a_real_pass_says(name, monkeypatch):
    network, family = network_of(name).eval(), FAMILIES[name]
    wanted = describe_layers(network, family.example(network), family.exempt_rules)
    ran = []
    network.register_forward_pre_hook(lambda *_: ran.append(True))
    assert list_layers(network, family, family.exempt_rules) == wanted
    assert not ran


def test_a_network_that_was_changed_is_run_for_real():
    family, network = FAMILIES["class-conditional-ldm"], network_of("class-conditional-ldm")
    changed = weightless_twin(network).to_empty(device="cpu")
    with torch.no_grad():
        changed.load_state_dict(network.state_dict())
    changed.conv_out = nn.Sequential(nn.Identity(), changed.conv_out)
    assert weightless_twin(changed) is None
    names = [layer.name for layer in list_layers(changed, family, ())]
    assert "conv_out.1" in names and "conv_out" not in names
