"""Export and load: the same plan, weights and pictures, in files that others can read."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from packed_reader import read_file, read_layer
from tiny_packed import WEIGHTS, draw, exported, mixed
from tiny_quant import small_calibration, small_denoiser

from mpqdm_core.denoiser import rebuild_pipeline
from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.packing import PackedLayer, export_packed, inspect_packed, load_packed


@pytest.mark.parametrize(
    ("grid", "activation_bits"), [("affine", 4), ("mid-rise", 8), ("both", 6), ("both", None)]
)
def test_a_loaded_model_is_the_exported_one(tmp_path, grid, activation_bits):
    quantized = mixed(grid, activation_bits)
    loaded = load_packed(exported(tmp_path / "model", quantized))
    assert loaded.plan.content_hash == quantized.plan.content_hash
    assert loaded.plan.settings == quantized.plan.settings
    assert loaded.settings == quantized.settings
    assert loaded.bit_report == quantized.bit_report
    assert loaded.denoiser.layers == quantized.denoiser.layers
    assert (loaded.content_hash, loaded.source_hash) == (quantized.content_hash, quantized.source_hash)
    assert list(loaded.layers) and set(loaded.layers) == set(quantized.layers)
    for name, layer in loaded.layers.items():
        assert isinstance(layer, PackedLayer)
        assert torch.equal(layer.quantized_weight(), quantized.layers[name].quantized_weight()), name
        assert torch.equal(layer.bits, quantized.layers[name].bits)
        assert torch.equal(layer.mid_rise, quantized.layers[name].mid_rise)
    assert np.array_equal(draw(loaded).latents, draw(quantized).latents)
    assert np.array_equal(draw(loaded).images, draw(quantized).images)


def test_a_packed_model_does_not_say_where_its_parts_came_from(tmp_path):
    vae = AutoencoderKL.from_pretrained(exported(tmp_path / "private-place") / "vae")
    assert "private-place" in str(vae.config["_name_or_path"])  # diffusers would write it
    denoiser = mixed().denoiser
    loaded = replace(
        mixed(), denoiser=replace(denoiser, pipeline=rebuild_pipeline(denoiser.pipeline, vae=vae))
    )
    copied = exported(tmp_path / "public", loaded)
    texts = [path for path in copied.rglob("*") if path.suffix in (".json", ".md")]
    assert len(texts) > 3 and not [path for path in texts if "private-place" in path.read_text()]
    assert np.array_equal(draw(load_packed(copied)).latents, draw(loaded).latents)


def test_a_trainable_student_is_stored_as_it_would_freeze(tmp_path):
    student = mixed(freeze=False)
    loaded = load_packed(exported(tmp_path / "model", student))
    assert np.array_equal(draw(loaded).latents, draw(student).latents)
    assert loaded.content_hash != student.content_hash  # training does not change a student's own hash


def test_half_precision_scales_are_part_of_the_exported_model(tmp_path):
    expected = copy.deepcopy(mixed(freeze=False))
    for layer in expected.layers.values():  # what the file promises, done by hand: round scales, then freeze
        layer.weight_scale.data = layer.weight_scale.data.half().float()
        layer.activation.scale.data = layer.activation.scale.data.half().float()
        if layer.activation.prescale is not None:
            layer.activation.prescale = layer.activation.prescale.half().float()
        layer.freeze_()
    result = export_packed(mixed(freeze=False), tmp_path / "model", scale_dtype="float16")
    loaded = load_packed(tmp_path / "model")
    assert np.array_equal(draw(loaded).latents, draw(expected).latents)
    assert loaded.content_hash == result.content_hash != mixed(freeze=False).content_hash


def test_exporting_a_loaded_model_again_gives_the_same_manifest_and_tensors(tmp_path):
    first = exported(tmp_path / "first")
    second = exported(tmp_path / "second", load_packed(first))
    (manifest, tensors), (again, tensors_again) = read_file(first / WEIGHTS), read_file(second / WEIGHTS)
    assert manifest == again and list(tensors) == list(tensors_again)
    assert all(np.array_equal(tensors[name], tensors_again[name]) for name in tensors)


@pytest.mark.parametrize("scale_dtype", ["float32", "float16"])
def test_the_page_on_the_format_is_enough_to_read_it(tmp_path, scale_dtype):
    quantized = mixed()
    folder = exported(tmp_path / "model", quantized, scale_dtype=scale_dtype)
    manifest, tensors = read_file(folder / WEIGHTS)
    loaded = load_packed(folder)
    packed = [entry for entry in manifest["layers"] if "groups" in entry]
    assert {entry["name"] for entry in packed} == set(quantized.layers)
    for entry in packed:
        found = read_layer(entry, tensors, len(manifest["timesteps"]))
        layer = loaded.layers[entry["name"]]
        assert np.array_equal(found["weight"], layer.quantized_weight().numpy()), entry["name"]
        assert np.array_equal(found["input_scale"], layer.activation.scale.numpy())
        assert np.array_equal(found["input_zero_point"], layer.activation.zero_point.numpy())
        if "bits" in entry:
            assert entry["bits"] == "".join(map(str, quantized.plan.layer_bits(entry["name"])))
            assert np.array_equal(found["prescale"], layer.activation.prescale.numpy())
    assert np.array_equal(
        tensors["conv_norm_out.weight"], quantized.denoiser.network.conv_norm_out.weight.numpy()
    )


def test_the_manifest_says_where_the_model_comes_from(tmp_path):
    quantized = mixed()
    folder = exported(
        tmp_path / "model", metrics={"fid": 1.5}, licence="apache-2.0", recipe={"policy": "uniform"}
    )
    manifest, _ = read_file(folder / WEIGHTS)
    assert manifest == json.loads((folder / "unet" / "mpqdm.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("mpqdm-packed", 1)
    assert manifest["model"]["licence"] == "apache-2.0"
    assert manifest["model"]["source_hash"] == quantized.source_hash
    assert manifest["calibration_hash"] == quantized.calibration_hash
    assert manifest["metrics"] == {"fid": 1.5} and manifest["recipe"] == {"policy": "uniform"}
    assert manifest["timesteps"] == list(small_calibration().timesteps)


def test_the_size_table_counts_every_byte(tmp_path):
    quantized = mixed()
    result = export_packed(quantized, tmp_path / "model", scale_dtype="float16")
    sizes = {item.name: item.bytes for item in result.items}
    assert sum(sizes.values()) == result.file_bytes == (tmp_path / "model" / WEIGHTS).stat().st_size
    layers = quantized.denoiser.quantizable_layers
    bits = sum(
        int(quantized.plan.layer_bits(layer.name).sum()) * layer.weights_per_channel for layer in layers
    )
    planes = 12 * len(layers)  # of all eight widths; each is filled up to a whole byte
    assert bits / 8 <= sizes["quantized weights"] <= bits / 8 + planes
    assert sizes["weight scales"] == 2 * sum(layer.out_channels for layer in layers)
    assert sizes["pre-scale factors"] == 2 * sum(layer.in_channels for layer in layers)
    assert sizes["activation ranges by timestep"] == 3 * len(small_calibration().timesteps) * len(layers)
    assert sizes["header and manifest"] < 64 * 1024


def test_a_file_can_be_looked_at_without_loading_it(tmp_path):
    result = export_packed(mixed(), tmp_path / "model", scale_dtype="float16", licence="mit")
    seen = inspect_packed(tmp_path / "model")
    assert seen.items == result.items and seen.content_hash == result.content_hash
    layers = mixed().denoiser.quantizable_layers
    weights = sum(layer.out_channels * layer.weights_per_channel for layer in layers)
    tables = sum(item.bytes for item in seen.items if item.of_quantized_layers)
    assert seen.bits_per_weight == pytest.approx(8 * tables / weights)
    # The estimate of the bit report counts the same tables; input zero-points take whole bytes here.
    assert seen.bits_per_weight == pytest.approx(mixed().bit_report.effective_bits, rel=0.02)
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n") and "activations at 6 bits" in card


def test_an_earlier_export_stays_when_a_new_one_is_cancelled(tmp_path):
    folder = exported(tmp_path / "model")
    before = (folder / WEIGHTS).read_bytes()

    def cancel(done, _total, _text):
        if done == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        export_packed(mixed("affine", 4), folder, report=cancel)
    assert (folder / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    export_packed(mixed("affine", 4), folder)
    assert (folder / WEIGHTS).read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_crash_between_the_two_renames_is_mended(tmp_path):
    folder = exported(tmp_path / "model")
    before = (folder / WEIGHTS).read_bytes()
    folder.rename(tmp_path / "model.old")

    def cancel(_done, _total, _text):
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        export_packed(mixed("affine", 4), folder, report=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / WEIGHTS).read_bytes() == before


def test_an_unknown_precision_of_scales_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="scale_dtype must be one of float32, float16, got 'int8'"):
        export_packed(mixed(), tmp_path / "model", scale_dtype="int8")


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="exists and is no packed model"):
        export_packed(mixed(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_model_without_a_pipeline_is_refused(tmp_path):
    quantized = mixed()
    alone = replace(quantized, denoiser=replace(quantized.denoiser, pipeline=None))
    with pytest.raises(SettingsError, match="small has no pipeline"):
        export_packed(alone, tmp_path / "model")


def test_weights_off_their_levels_are_refused(tmp_path):
    quantized = copy.deepcopy(mixed())
    name, layer = next(iter(quantized.layers.items()))
    layer.weight.data[0] += 0.3 * layer.weight_scale.data[0]
    with pytest.raises(DataError, match=f"the weights of {name} are not on its levels"):
        exported(tmp_path / "model", quantized)


def test_scales_that_half_precision_cannot_hold_are_refused(tmp_path):
    quantized = copy.deepcopy(mixed(freeze=False))
    quantized.layers["conv_in"].weight_scale.data[:] = 1e6
    with pytest.raises(DataError, match=r"a weight scale of conv_in is 1e\+06, above what float16 can hold"):
        exported(tmp_path / "model", quantized, scale_dtype="float16")


def test_models_of_other_types_are_refused(tmp_path):
    quantized = copy.deepcopy(mixed())
    quantized.layers["conv_in"].weight.data = quantized.layers["conv_in"].weight.data.bfloat16()
    with pytest.raises(DataError, match=r"conv_in has weights of torch\.bfloat16"):
        exported(tmp_path / "model", quantized)


def test_the_loaded_denoiser_is_described_as_the_source(tmp_path):
    loaded = load_packed(exported(tmp_path / "model")).denoiser
    source = small_denoiser()
    assert replace(loaded.sampler) == source.sampler
    assert (loaded.name, loaded.family, loaded.num_classes) == ("small", source.family, source.num_classes)
    assert loaded.class_names == source.class_names
