"""What is told of a model before it is fetched or opened, held against what it turns out to be."""

import shutil

import pytest
from hub_server import COMMIT, FakeHub
from tiny_models import save_model

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.host_policy import host_policy
from mpqdm_core.loading import load_denoiser
from mpqdm_core.looking import look_at_folder, look_at_hub

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("looks") / "model", "class-conditional-ldm")


@pytest.fixture
def hub(folder, monkeypatch):
    server = FakeHub({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.close()


def counted(denoiser):
    parts = denoiser.pipeline.components
    return {
        name: sum(tensor.numel() for tensor in parts[name].state_dict().values()) for name in ("unet", "vae")
    }


def test_a_folder_is_told_as_it_opens(folder):
    look, denoiser = look_at_folder(folder), load_denoiser(folder)
    assert look.pipeline_class == type(denoiser.pipeline).__name__ and look.component == "unet"
    assert {p.name: p.elements for p in look.parts if p.nbytes} == counted(denoiser)
    assert look.opens and look.missing == 0 and look.hub is None


def test_the_hub_is_told_as_the_folder_without_fetching_weights(folder, hub, tmp_path):
    look, here = look_at_hub("owner/name", host_policy({}), cache=tmp_path), look_at_folder(folder)
    assert [(p.name, p.class_name, p.nbytes, p.elements) for p in look.parts] == [
        (p.name, p.class_name, p.nbytes, p.elements) for p in here.parts
    ]
    assert (look.family, look.need.needed, look.licence) == (here.family, here.need.needed, "mit")
    assert look.source == f"owner/name@{COMMIT}" and look.missing == sum(map(len, hub.files.values()))
    assert all(part for _, path, part in hub.requests if path.endswith(WEIGHTS))


def test_a_policy_refuses_before_the_hub_is_asked_or_before_weights(hub, tmp_path):
    with pytest.raises(SettingsError, match="not on this server's list"):
        look_at_hub("owner/name", host_policy({"MPQDM_HUB_MODELS": "other/*"}), cache=tmp_path)
    assert hub.requests == []
    with pytest.raises(SettingsError, match=r"fetches at most 0\.1 MB"):
        look_at_hub("owner/name", host_policy({"MPQDM_MAX_DOWNLOAD_GB": "0.00001"}), cache=tmp_path)
    assert not [path for _, path, _ in hub.requests if path.endswith(".safetensors")]


def test_an_unknown_pipeline_and_a_network_alone_have_statistics_only(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "m")
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace("ClassConditionalLDMPipeline", "EvilPipeline"))
    look = look_at_folder(copy)
    assert "EvilPipeline" in look.problem and look.has_weights and not look.opens
    alone = look_at_folder(copy / "unet")
    assert "without its pipeline" in alone.problem and alone.has_weights and not alone.opens
    assert look_at_folder(copy / WEIGHTS).has_weights


@pytest.mark.parametrize("path", ["/no/such/folder", "a\0b", "x" * 5000])
def test_what_is_nothing_is_a_sentence(path):
    with pytest.raises(LoadError):
        look_at_folder(path)
