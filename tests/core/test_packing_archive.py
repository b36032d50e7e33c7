"""Packed models as one file, and files that strangers send."""

import io
import json
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_packed import WEIGHTS, draw, exported, mixed
from tiny_quant import small_denoiser

from mpqdm_core.errors import LoadError
from mpqdm_core.packing import (
    attach_packed,
    inspect_packed,
    load_packed,
    measure_packed,
    mismatch,
    open_upload,
    zip_packed,
)

TOP = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("packed") / "model", scale_dtype="float16")


@pytest.fixture(scope="module")
def archive(folder):
    return zip_packed(folder, folder.with_name("model.zip"))


def refused(path, tmp_path, **settings):
    """The sentence, after making sure that it tells nothing of the server and leaves nothing on it."""
    place = tmp_path / "place"
    with pytest.raises(LoadError) as caught:
        open_upload(path, place, **settings)
    assert not place.exists() or not list(place.iterdir())
    text = str(caught.value)
    assert str(tmp_path) not in text and "\n" not in text and path.name in text
    return text


def written(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def entries_of(folder, prefix="m/"):
    return {f"{prefix}{TOP}": (folder / TOP).read_bytes(), f"{prefix}unet/mpqdm.json": b"{}"}


def test_the_archive_unzips_to_the_folder_byte_for_byte_and_loads(folder, archive, tmp_path):
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / "model" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert load_packed(tmp_path / "model").content_hash == load_packed(folder).content_hash


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(LoadError, match="is no folder with files"):
        zip_packed(tmp_path / "nothing", tmp_path / "x.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "file"])
def test_both_forms_of_an_upload_show_the_same_account(kind, folder, archive, tmp_path):
    found = open_upload(archive if kind == "zip" else folder / WEIGHTS, tmp_path / "place")
    own = inspect_packed(folder)
    assert found.items == own.items and found.layers == own.layers
    assert found.file.read_bytes() == (folder / WEIGHTS).read_bytes()
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["denoiser.safetensors"]


def test_the_account_of_a_layer_is_that_of_its_tensors_on_the_disk(folder):
    tensors = load_file(folder / WEIGHTS)
    layers = {layer.name: layer for layer in inspect_packed(folder).layers}
    for name, layer in layers.items():
        stored = [
            tensors[f"{name}.{part}"]
            for part in ("weight_packed", "scales", "weight")
            if f"{name}.{part}" in tensors
        ]
        assert layer.bytes == sum(tensor.nbytes for tensor in stored)
    mixed_bits = layers["down_blocks.0.resnets.0.conv1"]
    weight = small_denoiser().network.get_submodule(mixed_bits.name).weight
    assert sum(mixed_bits.bits.values()) == weight.shape[0]
    assert mixed_bits.bytes_full_precision == weight.numel() * 4


def test_on_disk_bits_count_the_header_and_bits_per_weight_do_not(folder):
    packed = inspect_packed(folder)
    header = next(item.bytes for item in packed.items if item.name == "header and manifest")
    assert (packed.bits_on_disk - packed.bits_per_weight) * packed.weights == pytest.approx(8 * header)
    quantizable = small_denoiser().quantizable_layers
    assert packed.weights == sum(
        small_denoiser().network.get_submodule(layer.name).weight.numel() for layer in quantizable
    )


def test_measuring_writes_the_same_file_and_leaves_nothing(folder):
    measured = measure_packed(mixed())
    own = inspect_packed(folder)
    assert measured.manifest.tensors_sha256 == own.manifest.tensors_sha256
    assert [item.bytes for item in measured.items][:-1] == [item.bytes for item in own.items][:-1]
    assert not measured.file.exists()


def test_a_file_used_with_the_model_it_was_made_from_draws_what_its_folder_draws(folder):
    attached = attach_packed(folder / WEIGHTS, small_denoiser(), mode="frozen")
    assert torch.equal(
        torch.from_numpy(draw(attached).images), torch.from_numpy(draw(load_packed(folder)).images)
    )
    assert attached.denoiser.parameters == small_denoiser().parameters
    assert mismatch(inspect_packed(folder).manifest, small_denoiser()) == ""


def test_a_file_of_another_model_is_refused_and_says_whose_it_is(folder, tmp_path):
    path = tmp_path / "other.safetensors"
    change_manifest(folder, path, lambda entries: entries["model"].update(source_hash="f" * 64))
    with pytest.raises(LoadError, match=r"made from another model of the same name \(hash ffffffff\)"):
        attach_packed(path, small_denoiser())


def test_packed_quantized_and_full_models_have_the_same_parameters(folder):
    full = sum(parameter.numel() for parameter in small_denoiser().network.parameters())
    assert small_denoiser().parameters == full
    assert mixed().denoiser.parameters == full
    assert load_packed(folder).denoiser.parameters == full


def change_manifest(folder, path, change):
    entries = json.loads((folder / "unet" / "mpqdm.json").read_text())
    change(entries)
    save_file(load_file(folder / WEIGHTS), path, metadata={"mpqdm": json.dumps(entries)})


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff" * 64, b"PK\x03\x04 no archive"])
def test_what_is_neither_gets_a_sentence(content, tmp_path):
    path = tmp_path / "gift.zip"
    path.write_bytes(content)
    assert "cut short" in (said := refused(path, tmp_path)) or "not a safetensors file" in said


def test_an_archive_cut_short(archive, tmp_path):
    path = tmp_path / "half.zip"
    path.write_bytes(archive.read_bytes()[:-1000])
    assert "is cut short" in refused(path, tmp_path)


def test_an_archive_without_a_packed_denoiser_says_what_it_found(tmp_path):
    path = written(tmp_path / "photos.zip", {"a.jpg": b"x", "b.jpg": b"y"})
    assert "holds no packed denoiser" in (said := refused(path, tmp_path))
    assert "found a.jpg, b.jpg" in said


def test_an_archive_with_two(folder, tmp_path):
    path = written(tmp_path / "two.zip", entries_of(folder, "a/") | entries_of(folder, "b/"))
    assert "holds 2 packed denoisers" in refused(path, tmp_path)


def test_names_that_lead_elsewhere_are_never_used(folder, tmp_path):
    for prefix in ("../../", "/tmp/mpqdm-evil/"):
        path = written(tmp_path / "evil.zip", entries_of(folder, prefix))
        before = sorted(tmp_path.parent.rglob("*.safetensors"))
        found = open_upload(path, tmp_path / "place")
        assert found.file == tmp_path / "place" / "denoiser.safetensors"
        found.file.unlink()
        assert sorted(tmp_path.parent.rglob("*.safetensors")) == before


def test_a_bomb_is_stopped_while_it_unpacks_whatever_its_header_promises(folder, tmp_path):
    path = written(tmp_path / "bomb.zip", entries_of(folder) | {f"m/{TOP}": bytes(3 * 2**20)})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")  # the promised size, in both places
    assert struct.unpack_from("<L", content, directory + 24) == (3 * 2**20,)
    assert path.stat().st_size < 2**17
    assert "is larger than 1 MiB" in refused(path, tmp_path, limit_bytes=2**20)


def test_a_large_file_is_refused(folder, tmp_path):
    copy = tmp_path / "large.safetensors"
    copy.write_bytes((folder / WEIGHTS).read_bytes())
    assert "the most taken here" in refused(copy, tmp_path, limit_bytes=1000)


def test_an_archive_of_very_many_files_is_refused_before_they_are_listed(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(8000):
            file.writestr(f"{number:04}" + "x" * 120, b"")
    path = tmp_path / "many.zip"
    path.write_bytes(buffer.getvalue())
    assert "too many files" in refused(path, tmp_path)


def test_a_flipped_bit_is_noticed(folder, tmp_path):
    path = tmp_path / "flipped.safetensors"
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert "its tensors are not those of its manifest" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries.update(version=2), "format 2, this version reads up to 1"),
        (lambda entries: entries.update(format="other"), "is not a packed model"),
        (lambda entries: entries["layers"][3].update(macs=[], shape=[1e400]), "is damaged"),
        (lambda entries: entries["timesteps"].pop(), "bytes where its manifest says"),
    ],
)
def test_a_manifest_that_cannot_be_true(change, words, folder, tmp_path):
    path = tmp_path / "odd.safetensors"
    change_manifest(folder, path, change)
    assert words in refused(path, tmp_path)
