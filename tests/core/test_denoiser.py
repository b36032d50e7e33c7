from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny_models import CLASS_NAMES, tiny_denoiser, tiny_pipeline
from torch import nn

from mpqdm_core.denoiser import ExemptRule, SamplerSettings, describe_layers, hash_network
from mpqdm_core.errors import SettingsError
from mpqdm_core.families import FAMILIES, make_denoiser


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


class Small(nn.Module):
    """Runs its layers in another order than it names them, one of them twice, one never."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)
        self.last = nn.Linear(8, 5, bias=False)
        self.conv = nn.Conv2d(4, 8, (3, 1), stride=2, padding=(1, 0), groups=2)
        self.twice = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)  # (1, 9 positions, 8)
        return self.last(self.norm(self.twice(self.twice(x))))


def test_layers_come_in_running_order_with_macs_by_hand():
    layers = describe_layers(Small(), {"x": torch.zeros(1, 4, 6, 6)}, ())
    assert [layer.name for layer in layers] == ["conv", "twice", "last", "idle"]
    conv, twice, last, idle = layers
    # 3 x 3 positions, 8 channels out, each from 4 / 2 channels in and a 3 x 1 kernel
    assert conv.macs == 9 * 8 * 2 * 3
    assert (conv.kind, conv.kernel, conv.groups, conv.in_channels) == ("conv", (3, 1), 2, 4)
    assert (conv.weights_per_channel, conv.parameters) == (6, 8 * 6 + 8)
    assert twice.macs == 2 * 9 * 8 * 8
    assert (last.kind, last.kernel, last.macs, last.parameters) == ("linear", (), 9 * 8 * 5, 40)
    assert (idle.macs, idle.exempt, idle.reason) == (0, "full precision", "the forward pass never reaches it")


def test_the_first_matching_rule_exempts_and_no_hook_stays():
    network = Small()
    rules = (
        ExemptRule(pattern="c*", exempt="8-bit", reason="first"),
        ExemptRule(pattern="conv", exempt="full precision", reason="second"),
    )
    conv = describe_layers(network, {"x": torch.zeros(1, 4, 6, 6)}, rules)[0]
    assert (conv.exempt, conv.reason) == ("8-bit", "first")
    assert not any(module._forward_hooks for module in network.modules())


def test_every_linear_and_conv_of_a_unet_is_listed_once(denoiser):
    expected = {
        name for name, module in denoiser.network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    names = [layer.name for layer in denoiser.layers]
    assert set(names) == expected and len(names) == len(expected)
    assert names.index("down_blocks.1.resnets.0.conv1") < names.index("mid_block.resnets.0.conv1")
    assert names.index("mid_block.resnets.0.conv1") < names.index("up_blocks.0.resnets.0.conv1")


def test_exempt_layers_are_those_of_the_paper(denoiser):
    exempt = {layer.name: layer.exempt for layer in denoiser.exempt_layers}
    eight = {"time_embedding.linear_1", "time_embedding.linear_2", "conv_in", "conv_out"}
    assert {name for name, kind in exempt.items() if kind == "8-bit"} == eight
    full = {name for name, kind in exempt.items() if kind == "full precision"}
    assert full and all(name.endswith("conv_shortcut") or ".downsamplers." in name for name in full)
    assert "up_blocks.0.upsamplers.0.conv" in {layer.name for layer in denoiser.quantizable_layers}
    assert all(layer.reason for layer in denoiser.exempt_layers)


def test_exempt_rules_are_configurable():
    rules = [ExemptRule(pattern="*", exempt="8-bit", reason="all")]
    pipeline = tiny_pipeline("class-conditional-ldm")
    family = FAMILIES["class-conditional-ldm"]
    exempted = make_denoiser(pipeline, family, name="x", source="x", exempt_rules=rules)
    assert exempted.quantizable_layers == ()


def test_a_denoiser_knows_its_classes_and_parameters(denoiser):
    assert (denoiser.num_classes, denoiser.class_names) == (3, CLASS_NAMES)
    assert denoiser.parameters == sum(p.numel() for p in denoiser.network.parameters())
    assert denoiser.latent_shape == (4, 8, 8)
    assert not any(p.requires_grad for p in denoiser.network.parameters()) and not denoiser.network.training
    unconditional = tiny_denoiser("ldm")
    assert (unconditional.num_classes, unconditional.class_names) == (None, ())
    assert unconditional.sampler.guidance_scale == 1.0
    with pytest.raises(SettingsError, match="has no layer 'nope'"):
        denoiser.layer("nope")
    assert denoiser.layer("conv_in").kernel == (3, 3)


def test_the_feature_tap_is_the_last_up_block(denoiser):
    tap = FAMILIES[denoiser.family].feature_tap(denoiser.network)
    assert tap == "up_blocks.1"
    assert isinstance(denoiser.network.get_submodule(tap), nn.Module)


def test_the_hash_sees_weights_and_schedule_and_nothing_else(denoiser):
    pipeline = denoiser.pipeline
    same = copy.deepcopy(denoiser.network)
    assert hash_network(same, pipeline.scheduler) == denoiser.content_hash
    with torch.no_grad():
        same.conv_in.bias[0] += 1e-3
    assert hash_network(same, pipeline.scheduler) != denoiser.content_hash
    other = type(pipeline.scheduler).from_config(pipeline.scheduler.config, beta_end=0.03)
    assert hash_network(denoiser.network, other) != denoiser.content_hash
    assert tiny_denoiser(seed=0).content_hash == denoiser.content_hash
    assert len(denoiser.content_hash) == 64


@pytest.mark.parametrize("family", ["class-conditional-ldm", "ldm", "ddpm"])
def test_with_network_swaps_the_network_and_shares_the_rest(family):
    denoiser = tiny_denoiser(family)
    network = copy.deepcopy(denoiser.network)
    with torch.no_grad():
        network.conv_in.weight.mul_(2)
    swapped = denoiser.with_network(network)
    assert swapped.network is network and swapped.pipeline.unet is network
    assert denoiser.pipeline.unet is denoiser.network is not network
    assert swapped.content_hash == hash_network(network, denoiser.pipeline.scheduler) != denoiser.content_hash
    assert denoiser.with_network(network, content_hash="known").content_hash == "known"
    for name in ("vae", "vqvae"):
        assert getattr(swapped.pipeline, name, None) is getattr(denoiser.pipeline, name, None)
    assert dict(swapped.pipeline.scheduler.config) == dict(denoiser.pipeline.scheduler.config)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"num_inference_steps": 0}, "from 1 up, got 0"),
        ({"num_inference_steps": 2.5}, "from 1 up, got 2.5"),
        ({"guidance_scale": math.nan}, "from 0 up, got nan"),
        ({"guidance_scale": -1.0}, "from 0 up, got -1.0"),
        ({"eta": 1.5}, r"in \[0, 1\], got 1.5"),
        ({"eta": math.nan}, r"in \[0, 1\], got nan"),
    ],
)
def test_impossible_sampler_settings_are_refused(setting, text):
    with pytest.raises(SettingsError, match=text):
        SamplerSettings(**setting)
