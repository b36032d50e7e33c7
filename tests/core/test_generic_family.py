"""Networks without a known pipeline, and layers that are not like the others."""

import json

import numpy as np
import pytest
import torch
from diffusers import SanaTransformer2DModel
from tiny_models import tiny_denoiser
from tiny_pipelines import few_steps, text_denoiser, text_pipeline
from torch import nn

from mpqdm_core.allocation import AllocationSettings, BitPlan, allocate
from mpqdm_core.calibration import CalibrationSettings, calibrate
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import DataError, LoadError
from mpqdm_core.families import FAMILIES, make_denoiser
from mpqdm_core.generic_family import open_network, quantize_weights
from mpqdm_core.loading import load_denoiser
from mpqdm_core.measure import RowSettings, measure_error_table
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import sample
from mpqdm_core.stored_weights import open_stored
from mpqdm_core.streaming import stored_error_table, stored_outlier_stats


@pytest.fixture(scope="module")
def sana(tmp_path_factory):
    """A transformer with depthwise convolutions, in the folder of a pipeline that is not known here."""
    folder = tmp_path_factory.mktemp("sana")
    torch.manual_seed(0)
    SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=16, mlp_ratio=2.0, sample_size=8, patch_size=1,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    index = {"_class_name": "SanaPipeline", "transformer": ["diffusers", "SanaTransformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_network_of_an_unknown_pipeline_is_analysed_allocated_and_rounded(sana):
    with pytest.raises(LoadError, match=r"holds a SanaPipeline; .* weights of any network .* open_stored"):
        load_denoiser(sana)
    stored = open_stored(sana)
    table = stored_error_table(stored)
    plan = allocate(table, AllocationSettings(policy="optimal", average_bits=3.0)).plan
    statistics = {layer.name: layer.weight.kurtosis for layer in stored_outlier_stats(stored).layers}
    network = open_network(sana)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rounded = quantize_weights(network, plan)
    original = dict(network.named_modules())
    assert any(getattr(original[name], "groups", 1) > 1 for name in plan.layer_names)
    for place, name in enumerate(plan.layer_names):
        weight = original[name].weight.double().flatten(1).numpy()
        difference = rounded.get_submodule(name).weight.double().flatten(1).numpy() - weight
        rows = slice(table.layer_start[place], table.layer_start[place + 1])
        expected = table.error[rows][np.arange(len(weight)), plan.layer_bits(name) - 1]
        np.testing.assert_allclose((difference**2).sum(axis=1), expected, rtol=1e-3, atol=1e-9)
        centred = weight - weight.mean(axis=1, keepdims=True)
        kurtosis = (centred**4).mean(axis=1) / (centred**2).mean(axis=1) ** 2
        np.testing.assert_allclose(statistics[name], kurtosis, rtol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert type(rounded) is type(network)


def test_what_is_no_network_is_refused(sana, tmp_path):
    with pytest.raises(LoadError, match="holds no network"):
        open_network(tmp_path)
    for name in ("DDIMScheduler", "StableDiffusionPipeline", "utils", 3):
        (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(LoadError, match=rf"holds a '?{name}'?, which is no model of the installed"):
            open_network(tmp_path)
    other = BitPlan.uniform(["nowhere"], [4], [9], 4)
    with pytest.raises(DataError, match="nowhere is missing"):
        quantize_weights(open_network(sana), other)


def uniform(model, bits):
    layers = model.quantizable_layers
    return BitPlan.uniform(
        [layer.name for layer in layers],
        [layer.out_channels for layer in layers],
        [layer.weights_per_channel for layer in layers],
        bits,
    )


def test_fused_projections_are_rounded_as_their_parts_are():
    """Weights are rounded by output channel, and a fused projection's channels are those of its parts."""
    settings = few_steps("stable-diffusion")
    weights_only = QuantSettings(activation_bits=None, prescale_alpha=None)
    drawn = {}
    for fused in (False, True):
        if fused:
            pipeline = text_pipeline("stable-diffusion")
            pipeline.fuse_qkv_projections(vae=False)
            model = make_denoiser(
                pipeline, FAMILIES["stable-diffusion"], name="fused", source="test",
                prompts=text_denoiser("stable-diffusion").class_names,
            )  # fmt: skip
            names = [layer.name for layer in model.quantizable_layers]
            assert any(name.endswith("attn1.to_qkv") for name in names)
            reasons = {layer.name: layer.reason for layer in model.exempt_layers}
            replaced = [reason for name, reason in reasons.items() if name.endswith("attn1.to_q")]
            assert replaced and set(replaced) == {"the forward pass never reaches it"}
        else:
            model = text_denoiser("stable-diffusion")
        calibration = calibrate(
            model, CalibrationSettings(samples=1, batch_size=1, rows_per_step=4, sampler=settings)
        )
        student = quantize(model, calibration, uniform(model, 3), weights_only).denoiser
        drawn[fused] = sample(student, labels=[1], seeds=[4], settings=settings).latents
    np.testing.assert_allclose(drawn[True], drawn[False], atol=1e-3)


def test_grouped_convolutions_go_the_whole_way():
    """The table's energy is the mean square of what the convolution really puts out."""
    plain = tiny_denoiser("ddpm")
    torch.manual_seed(1)
    name = "mid_block.resnets.0.conv1"
    grouped = nn.Conv2d(64, 64, 3, padding=1, groups=4)
    plain.network.mid_block.resnets[0].conv1 = grouped
    model = make_denoiser(plain.pipeline, FAMILIES["ddpm"], name="grouped", source="test")
    assert model.layer(name).groups == 4 and model.layer(name).weights_per_channel == 16 * 9
    steps = SamplerSettings(num_inference_steps=2, guidance_scale=1.0)
    calibration = calibrate(
        model, CalibrationSettings(samples=2, batch_size=2, rows_per_step=8, sampler=steps)
    )
    rows = RowSettings(images_per_step=2, positions=10_000)
    table = measure_error_table(model, calibration, QuantSettings(activation_bits=8), rows=rows)
    seen = []
    handle = grouped.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        for slot in range(2):
            model.network(**calibration.inputs.arguments(slot, torch.arange(2)))
    handle.remove()
    outputs = torch.cat(seen) - grouped.bias.view(1, -1, 1, 1)
    expected = outputs.double().square().mean(dim=(0, 2, 3)).detach().numpy()
    place = table.layer_names.index(name)
    energy = table.energy[table.layer_start[place] : table.layer_start[place + 1]]
    np.testing.assert_allclose(energy, expected, rtol=1e-4)  # every position was measured
    student = quantize(model, calibration, uniform(model, 8), QuantSettings(activation_bits=None)).denoiser
    reference = sample(model, labels=None, seeds=[1], settings=steps).latents
    drawn = sample(student, labels=None, seeds=[1], settings=steps).latents
    coarse = quantize(model, calibration, uniform(model, 2), QuantSettings(activation_bits=None)).denoiser
    coarse_drawn = sample(coarse, labels=None, seeds=[1], settings=steps).latents
    assert np.square(drawn - reference).mean() < 0.05 * np.square(coarse_drawn - reference).mean()
