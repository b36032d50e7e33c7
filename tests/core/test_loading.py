from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CLASS_NAMES, save_model, tiny_denoiser, tiny_pipeline, tiny_unet

import mpqdm_core.loading as loading
from mpqdm_core.errors import LoadError
from mpqdm_core.loading import bundled_models, load_denoiser
from mpqdm_core.model_files import SHARDS_FILE, WEIGHTS_FILE, check_safetensors

WEIGHTS = f"unet/{WEIGHTS_FILE}"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    return {name: save_model(root / name, name) for name in ("ddpm", "ddim", "ldm", "class-conditional-ldm")}


@pytest.fixture
def model(originals, tmp_path):
    """A class-conditional model that a test may damage."""
    return shutil.copytree(originals["class-conditional-ldm"], tmp_path / "model")


@pytest.fixture
def pixel_model(originals, tmp_path):
    return shutil.copytree(originals["ddpm"], tmp_path / "pixel")


def edit_json(path, **changes):
    """Set keys of a JSON file; None removes one."""
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def refused(folder, *texts):
    with pytest.raises(LoadError) as caught:
        load_denoiser(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for text in texts:
        assert text in sentence
    return sentence


@pytest.mark.parametrize("name", ["ddpm", "ddim", "ldm", "class-conditional-ldm"])
def test_every_family_loads_with_the_weights_of_its_folder(originals, name):
    denoiser = load_denoiser(originals[name])
    saved = load_file(originals[name] / WEIGHTS)
    loaded = denoiser.network.state_dict()
    assert saved.keys() == loaded.keys() and all(torch.equal(saved[key], loaded[key]) for key in saved)
    assert denoiser.family == ("ddpm" if name == "ddim" else name)
    assert denoiser.class_names == (CLASS_NAMES if name == "class-conditional-ldm" else ())
    assert denoiser.source == str(originals[name]) and denoiser.name == name
    assert denoiser.content_hash == tiny_denoiser(name).content_hash


def test_a_decoder_called_vae_and_an_autoencoder_kl_also_load(originals, tmp_path):
    folder = shutil.copytree(originals["ldm"], tmp_path / "m")
    (folder / "vqvae").rename(folder / "vae")
    edit_json(folder / "model_index.json", vqvae=None, vae=["diffusers", "VQModel"])
    assert load_denoiser(folder).pipeline.vqvae.config.latent_channels == 3


def test_a_sharded_model_loads(model):
    tensors = load_file(model / WEIGHTS)
    names = sorted(tensors)
    files = ["a.safetensors", "b.safetensors"]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in part}, model / "unet" / file, metadata={"format": "pt"})
    weight_map = {name: files[index % 2] for index, name in enumerate(names)}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (model / "unet" / SHARDS_FILE).write_text(json.dumps(index))
    (model / WEIGHTS).unlink()
    loaded = load_denoiser(model).network.state_dict()
    assert all(torch.equal(loaded[name], tensors[name]) for name in names)
    index["weight_map"][names[0]] = "../../a.safetensors"
    (model / "unet" / SHARDS_FILE).write_text(json.dumps(index))
    refused(model, SHARDS_FILE, "must name files beside it")


def test_half_precision_weights_become_float32(model):
    halved = {name: tensor.half() for name, tensor in load_file(model / WEIGHTS).items()}
    save_file(halved, model / WEIGHTS, metadata={"format": "pt"})
    loaded = load_denoiser(model).network.state_dict()
    assert all(torch.equal(loaded[name], halved[name].float()) for name in halved)
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_bundled_models_load_by_name_with_their_cards(originals, tmp_path):
    shutil.copytree(originals["ddim"], tmp_path / "tiny")
    (tmp_path / "not-a-model").mkdir()
    (tmp_path / "tiny" / "README.md").write_text("---\nlicense: x\n---\n# Tiny\n\nDraws\nnothing.\n\nMore.\n")
    (card,) = bundled_models(tmp_path)
    size = sum(path.stat().st_size for path in (tmp_path / "tiny").rglob("*") if path.is_file())
    assert (card.name, card.title, card.description) == ("tiny", "Tiny", "Draws nothing.")
    assert card.size_mb == size / 1e6
    denoiser = load_denoiser("tiny", bundled=tmp_path)
    assert (denoiser.name, denoiser.source) == ("tiny", "tiny")
    with pytest.raises(LoadError, match=r"no model or folder 'tinny'; .* a bundled model \(tiny\)"):
        load_denoiser("tinny", bundled=tmp_path)


@pytest.mark.parametrize("source", ["", "   ", "/no/such/folder", "a\0b", "x" * 5000, "~nobody-at-all/x"])
def test_a_wrong_path_says_what_would_work(source):
    assert len(refused(source, "give a diffusers folder or a bundled model")) < 300


def test_a_file_or_a_folder_without_index_says_what_it_is(model):
    refused(model / "model_index.json", "is a file")
    refused(model / "unet", "has no model_index.json", f"config.json, {WEIGHTS_FILE}", "save_pretrained")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "is not valid JSON"), ("[]", "found a list"), ("\x00\xff", "JSON"), ("[" * 100_000, "JSON")],
)
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
def test_bad_json_is_named(model, name, text, expected):
    (model / name).write_bytes(text.encode("latin-1"))
    refused(model, name, expected)


@pytest.mark.parametrize("name", ["unet", "vae", "scheduler"])
def test_a_missing_component_is_named(model, name):
    shutil.rmtree(model / name)
    refused(model, f"has no {name}/", "found")
    edit_json(model / "model_index.json", **{name: None})
    refused(model, f"names no {name}", "a ClassConditionalLDMPipeline needs scheduler, unet, vae")


def test_unsupported_classes_name_the_supported_ones(model):
    index = model / "model_index.json"
    edit_json(index, vae=["diffusers", "AutoencoderTiny"])
    refused(model, "AutoencoderTiny", "supported are diffusers' AutoencoderKL")
    edit_json(index, vae=["evil", "AutoencoderKL"])
    refused(model, "evil")
    edit_json(index, vae=["diffusers", "AutoencoderKL"], scheduler=["diffusers", "EulerDiscreteScheduler"])
    refused(model, "EulerDiscreteScheduler", "DDIMScheduler, DDPMScheduler")
    edit_json(index, scheduler=["diffusers", "DDIMScheduler"], text_encoder=["transformers", "CLIPTextModel"])
    refused(model, "text_encoder", "and no more")
    edit_json(index, _class_name="StableVideoDiffusionPipeline")
    refused(
        model, "holds a StableVideoDiffusionPipeline; supported are ClassConditionalLDMPipeline, DDIMPipeline"
    )
    edit_json(index, _class_name=["pipeline_evil", "Evil"])
    refused(model, "pipeline_evil", "supported are")
    edit_json(index, _class_name=None)
    refused(model, "without a class name")


def test_pickled_weights_are_never_opened(model):
    (model / WEIGHTS).rename(model / "unet" / "diffusion_pytorch_model.bin")
    refused(model, "only as diffusion_pytorch_model.bin", "can run code", "save_pretrained")


def test_weights_under_another_name_are_listed(model):
    (model / WEIGHTS).rename(model / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    refused(model, f"no {WEIGHTS_FILE}, found config.json, diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused_before_anything_is_built(model, monkeypatch, kept):
    path = model / WEIGHTS
    size = path.stat().st_size
    kept = kept if kept >= 0 else size + kept
    path.write_bytes(path.read_bytes()[:kept])
    monkeypatch.setattr(tiny_unet().__class__, "from_pretrained", None)
    words = {0: "not a safetensors", 5: "not a safetensors", 100: "cut short inside its header"}
    refused(model, str(path), words.get(kept, f"promises {size} bytes, it has {kept}"))


@pytest.mark.parametrize(
    "header",
    [b"{}x", b"[]", b'{"a": {"shape": [1], "data_offsets": "no"}}', b'{"a": 1}', b"[" * 50_000],
)
def test_a_damaged_header_is_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LoadError, match=r"is not a safetensors file|is too long"):
        check_safetensors(path)


def test_weights_are_counted_and_surplus_bytes_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(())}, path)
    assert check_safetensors(path) == 13
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(LoadError, match="is too long"):
        check_safetensors(path)


def test_weights_of_another_model_are_refused(model):
    save_file(tiny_unet(num_class_embeds=9).state_dict(), model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "numbers, its config.json describes", "must come from one model")
    renamed = {f"x.{name}": tensor for name, tensor in tiny_unet(num_class_embeds=4).state_dict().items()}
    save_file(renamed, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "must come from one model")


def test_a_configuration_that_fits_no_model_is_refused(model):
    edit_json(model / "unet" / "config.json", block_out_channels=[33, 64])
    refused(model, "cannot be built")
    edit_json(model / "unet" / "config.json", quantization_config={"quant_method": "x"})
    refused(model, "is quantized already")


def test_parts_that_do_not_fit_each_other_are_refused(pixel_model, model):
    save_part(pixel_model, tiny_unet(channels=3, num_class_embeds=2))
    refused(pixel_model, "takes class labels, which a DDPMPipeline never gives")
    save_part(pixel_model, tiny_unet(channels=3, out_channels=6))
    refused(pixel_model, "3 channels in and 6 out")
    save_part(pixel_model, tiny_unet(channels=5))
    refused(pixel_model, "pictures of 5 channels")
    save_part(pixel_model, tiny_unet(channels=3, sample_size=None))
    refused(pixel_model, "does not say its sample_size")
    save_part(model, tiny_unet(channels=3, num_class_embeds=4))
    refused(model, "works on 3 channels, its decoder on 4")
    save_part(model, tiny_unet())
    refused(model, "plus one null class, got None")


def save_part(folder, unet):
    unet.save_pretrained(folder / "unet")


def test_links_out_of_the_folder_are_refused(model, tmp_path):
    outside = tmp_path / "outside"
    (model / "unet").rename(outside)
    (model / "unet").symlink_to(outside)
    refused(model, "leads out of the folder", str(outside))
    (model / "unet").unlink()
    outside.rename(model / "unet")
    (model / WEIGHTS).rename(tmp_path / "w")
    (model / WEIGHTS).symlink_to(tmp_path / "w")
    refused(model, WEIGHTS, "leads out of the folder")
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).symlink_to(model / WEIGHTS)
    refused(model, WEIGHTS)


def test_a_link_inside_the_folder_and_a_link_to_it_are_fine(model, tmp_path):
    (model / WEIGHTS).rename(model / "unet" / "real")
    (model / WEIGHTS).symlink_to("real")
    (tmp_path / "link").symlink_to(model)
    assert load_denoiser(tmp_path / "link").num_classes == 3


def test_a_folder_that_changes_while_it_is_read_is_refused(model, monkeypatch):
    build = loading._load_part

    def slow_build(folder, *rest):
        part = build(folder, *rest)
        (folder / "unet" / "config.json").touch()
        return part

    monkeypatch.setattr(loading, "_load_part", slow_build)
    refused(model, "changed while it was being read (unet/config.json)", "when it is complete")


def test_a_change_is_told_rather_than_the_damage_it_does(model, monkeypatch):
    build = loading._load_part

    def vanishing(folder, *rest):
        (folder / WEIGHTS).write_bytes(b"half")
        return build(folder, *rest)

    monkeypatch.setattr(loading, "_load_part", vanishing)
    refused(model, "changed while it was being read")


def test_no_memory_is_told_as_that(model, monkeypatch):
    def greedy(*_args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(loading, "_load_part", greedy)
    refused(model, "does not fit into memory")


def test_loading_needs_no_unpickling(model, monkeypatch):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr("pickle.load", forbidden)
    assert load_denoiser(model).content_hash == tiny_denoiser().content_hash


def test_a_tiny_pipeline_is_what_the_folder_was_made_from(originals):
    assert type(tiny_pipeline("ddpm")).__name__ == "DDPMPipeline"
    assert json.loads((originals["ddpm"] / "model_index.json").read_text())["_class_name"] == "DDPMPipeline"
