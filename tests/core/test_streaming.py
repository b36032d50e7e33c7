"""Looking at checkpoints without loading them."""

import json
import os
import resource
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import save_model, tiny_denoiser

from mpqdm_core.allocation import AllocationSettings, allocate
from mpqdm_core.denoiser import ExemptRule
from mpqdm_core.errors import LoadError
from mpqdm_core.kurtosis import channel_kurtosis
from mpqdm_core.outliers import outlier_stats
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.stored_weights import StoredDenoiser, open_stored
from mpqdm_core.streaming import stored_error_table, stored_outlier_stats

FIELDS = ("kurtosis", "crest", "range_ratio", "outlier_fraction", "energy_share", "degenerate")


def test_a_folder_has_the_layers_and_the_numbers_of_the_loaded_model(tmp_path):
    folder = save_model(tmp_path / "m", "class-conditional-ldm")
    loaded, stored = tiny_denoiser(), open_stored(folder)
    assert stored.class_name == "UNet2DModel"
    specs = {spec.name: spec for spec in loaded.layers}
    assert {layer.name for layer in stored.layers} == set(specs)
    for layer in stored.layers:
        spec = specs[layer.name]
        assert (layer.kind, layer.out_channels, layer.weights_per_channel, layer.exempt) == (
            spec.kind,
            spec.out_channels,
            spec.weights_per_channel,
            spec.exempt,
        )
    in_memory, streamed = outlier_stats(loaded), stored_outlier_stats(stored)
    for layer in streamed.layers:
        expected = in_memory.layer(layer.name).weight
        for field in FIELDS:
            np.testing.assert_array_equal(
                getattr(layer.weight, field), getattr(expected, field), err_msg=field
            )


def test_parts_of_a_weight_give_the_statistics_of_the_whole(tmp_path):
    weight = torch.randn(700, 33, generator=torch.Generator().manual_seed(0))
    weight[5] = 0.0
    save_file({"x.weight": weight}, tmp_path / "m.safetensors")
    layer = open_stored(tmp_path / "m.safetensors").layers[0]
    parts = [layer.read(channels) for channels in layer.parts(block_bytes=1000)]
    assert len(parts) == 100 and torch.equal(torch.cat(parts), weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_small_floats_are_read_as_the_values_they_hold(tmp_path, dtype):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    save_file({"x.weight": weight}, tmp_path / "m.safetensors")
    got = stored_outlier_stats(open_stored(tmp_path / "m.safetensors")).layers[0].weight.kurtosis
    values = weight.double().numpy()
    centred = values - values.mean(axis=1, keepdims=True)
    expected = (centred**4).mean(axis=1) / (centred**2).mean(axis=1) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_sharded_transformer(tmp_path):
    generator = torch.Generator().manual_seed(2)
    names = [
        "proj_out",
        "single_transformer_blocks.0.proj_mlp",
        "transformer_blocks.10.attn.to_q",
        "transformer_blocks.2.attn.to_q",
        "x_embedder",
    ]
    shards = {}
    (tmp_path / "transformer").mkdir()
    for number, name in enumerate(names):
        file = f"part-{number}.safetensors"
        tensors = {f"{name}.weight": torch.randn(4, 6, generator=generator), f"{name}.bias": torch.zeros(4)}
        save_file(tensors, tmp_path / "transformer" / file)
        shards |= dict.fromkeys(tensors, file)
    index = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model_index.json").write_text("{}")
    stored = open_stored(tmp_path)
    assert [layer.name for layer in stored.layers] == [
        "x_embedder",
        "transformer_blocks.2.attn.to_q",
        "transformer_blocks.10.attn.to_q",
        "single_transformer_blocks.0.proj_mlp",
        "proj_out",
    ]
    assert [layer.exempt for layer in stored.layers] == ["8-bit", None, None, None, "8-bit"]
    assert stored_outlier_stats(stored).layer("proj_out").weight.kurtosis.shape == (4,)


def test_tables_norms_and_integers_are_no_layers(tmp_path):
    tensors = {
        "class_embedding.weight": torch.zeros(11, 8),
        "norm.weight": torch.ones(8),
        "codes.weight": torch.zeros(3, 3, dtype=torch.int8),
        "linear.weight": torch.ones(3, 3),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    assert [layer.name for layer in open_stored(tmp_path / "m.safetensors").layers] == ["linear"]


def test_error_table_by_hand_and_its_allocation(tmp_path):
    # Mid-rise levels that cover [-1, 1] with b bits end at 1 - 2**-b: so far is each of four weights away.
    tensors = {
        "easy.weight": torch.tensor([[1.0, -1.0, 1.0, -1.0]] * 2),
        "hard.weight": 10 * torch.randn(2, 4, generator=torch.Generator().manual_seed(3)),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    stored = open_stored(tmp_path / "m.safetensors")
    table = stored_error_table(stored, QuantSettings(grid="mid-rise", range_exponent=2.0))
    assert table.layer_names == ("easy", "hard")
    np.testing.assert_allclose(table.error[0], [4 * 4.0**-bits for bits in range(1, 9)], rtol=1e-5)
    np.testing.assert_allclose(table.energy[:2], 4.0)
    assert (table.error[2:, 0] > table.error[2:, 7]).all()
    assert table.settings["inputs"] == "white noise"
    plan = allocate(table, AllocationSettings(average_bits=3.0, scope="model")).plan
    assert plan.layer_bits("easy").mean() < plan.layer_bits("hard").mean()


def test_exempt_rules_can_be_chosen(tmp_path):
    save_file({"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    rule = ExemptRule(pattern="a", exempt="full precision", reason="asked for")
    stored = open_stored(tmp_path / "m.safetensors", rules=(rule,))
    assert [layer.name for layer in stored.quantizable_layers] == ["b"]


def test_progress_counts_what_was_read(tmp_path):
    save_file(
        {"a.weight": torch.randn(3000, 1000), "b.weight": torch.randn(10, 10)}, tmp_path / "m.safetensors"
    )
    told = []
    stored_outlier_stats(open_stored(tmp_path / "m.safetensors"), report=lambda d, t, m: told.append((d, t)))
    assert told[-1] == (11, 11)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_memory_does_not_grow_with_the_file(tmp_path):
    big = {
        f"l{i}.weight": torch.randn(1000, 12_000, generator=torch.Generator().manual_seed(i))
        for i in range(4)
    }
    save_file(big, tmp_path / "m.safetensors")  # 192 MB
    del big
    stored = open_stored(tmp_path / "m.safetensors")
    stored.layers[0].read(range(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stored_outlier_stats(stored)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 150  # MiB, the file's own pages in memory included where the system counts them


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "there is no folder or file"),
        (lambda path: path.mkdir(), "has no diffusion_pytorch_model.safetensors|no folder"),
        (lambda path: path.write_text("x"), "no safetensors file"),
    ],
)
def test_what_cannot_be_opened_gets_a_sentence(tmp_path, make, sentence):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(LoadError, match=sentence):
        open_stored(path)


def test_damaged_and_empty_files_get_a_sentence(tmp_path):
    save_file({"a.weight": torch.ones(4, 4)}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-5])
    with pytest.raises(LoadError, match="is cut short"):
        open_stored(tmp_path / "m.safetensors")
    save_file({"norm.weight": torch.ones(4)}, tmp_path / "n.safetensors")
    with pytest.raises(LoadError, match="no weights of linear layers"):
        open_stored(tmp_path / "n.safetensors")


def test_a_file_that_goes_away_while_it_is_read(tmp_path):
    save_file({"a.weight": torch.ones(4, 4)}, tmp_path / "m.safetensors")
    stored: StoredDenoiser = open_stored(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").unlink()
    with pytest.raises(LoadError, match="cannot be read any more"):
        stored_outlier_stats(stored)


def test_a_file_that_is_written_to_after_it_was_listed(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({"a.weight": torch.ones(4, 4)}, path)
    stored = open_stored(path)
    save_file({"a.weight": torch.zeros(4, 4)}, path)
    os.utime(path, ns=(0, 1))
    for look in (lambda: stored_outlier_stats(stored), stored.layers[0].weight):
        with pytest.raises(LoadError, match="was written to while it was read"):
            look()


def test_weights_between_the_boundaries_of_words(tmp_path):
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
    header = json.dumps(
        {
            "x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "a.weight": {"dtype": "F32", "shape": [3, 5], "data_offsets": [1, 61]},
        }
    ).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" + weight.numpy().tobytes())
    stored = open_stored(path)
    assert torch.equal(stored.layers[0].weight(), weight)
    np.testing.assert_array_equal(
        stored_outlier_stats(stored).layers[0].weight.kurtosis, channel_kurtosis(weight).numpy()
    )
