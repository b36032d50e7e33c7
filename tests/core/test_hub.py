"""Fetching from a Hub on loopback that behaves, and from one that does not."""

import hashlib
from pathlib import Path

import pytest
from hub_server import COMMIT, FakeHub
from tiny_models import save_model, tiny_denoiser

from mpqdm_core.errors import Cancelled, LoadError
from mpqdm_core.hub import describe_hub_model, fetch_hub_model, parse_hub_source
from mpqdm_core.loading import load_denoiser

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"), "class-conditional-ldm")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def hub(model_files, monkeypatch):
    server = FakeHub(dict(model_files))
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # Waiting between tries is the Hub library's business, not what is tested here.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield server
    server.close()


def fetch(tmp_path, **arguments):
    return fetch_hub_model(describe_hub_model("owner/name"), cache=tmp_path, **arguments)


def test_what_would_be_fetched_is_known_before(hub, tmp_path):
    hub.files |= {
        "unet/diffusion_pytorch_model.fp16.safetensors": b"again",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "evil.py": b"print()",
        "unet/evil.py": b"print()",
    }
    hub.announced |= {name: "0" * 64 for name in hub.files if name not in hub.announced}
    model = describe_hub_model("owner/name")
    assert model.commit == COMMIT and model.licence == "mit"
    assert model.pipeline_class == "ClassConditionalLDMPipeline"
    assert UNET in model.files and "vae/config.json" in model.files
    assert not any(name.endswith((".bin", ".py")) or "fp16" in name for name in model.files)
    assert model.nbytes == sum(len(hub.files[name]) for name in model.files)
    asked = [path for _, path, _ in hub.requests if path.endswith(".safetensors")]
    assert asked == []


def test_a_fetched_model_is_the_model(hub, tmp_path):
    told = []
    folder = fetch(tmp_path, report=lambda done, total, text: told.append((done, total)))
    assert load_denoiser(folder).content_hash == tiny_denoiser().content_hash
    assert told[0][0] == 0 and told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_second_time_nothing_large_is_fetched(hub, tmp_path):
    fetch(tmp_path)
    hub.requests.clear()
    fetch(tmp_path)
    assert not [path for method, path, _ in hub.requests if method == "GET" and path.endswith(".safetensors")]


def test_a_broken_connection_is_a_sentence_and_the_next_try_goes_on(hub, tmp_path):
    hub.fault = "reset"
    with pytest.raises(LoadError, match=r"connection|try again"):
        fetch(tmp_path)
    hub.fault = ""
    hub.requests.clear()
    folder = fetch(tmp_path)
    assert load_denoiser(folder).content_hash == tiny_denoiser().content_hash


def test_stop_keeps_what_came_and_the_next_try_finishes(hub, tmp_path):
    hub.fault = "slow"

    def stop(done, total, text):
        if done >= 1:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        fetch(tmp_path, report=stop)
    hub.fault = ""
    assert (fetch(tmp_path) / UNET).is_file()


def test_a_file_with_another_hash_is_thrown_away(hub, tmp_path):
    hub.announced[UNET] = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(LoadError, match="its hash differs"):
        fetch(tmp_path)
    assert not list(Path(tmp_path).rglob("unet/*.safetensors"))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("401", "does not know the token|no model owner/name"),
        ("403", "may not read owner/name"),
        ("429", "too many requests"),
        ("500", "out of order"),
        ("gated", "is gated: accept its terms"),
        ("nonsense", "makes no sense|cannot be reached"),
    ],
)
def test_every_refusal_is_a_sentence(hub, tmp_path, fault, sentence):
    hub.fault = fault
    with pytest.raises(LoadError, match=sentence):
        describe_hub_model("owner/name")


def test_missing_models_and_revisions(hub, tmp_path):
    with pytest.raises(LoadError, match="there is no model owner/other"):
        describe_hub_model("owner/other")
    with pytest.raises(LoadError, match="has no revision 'v9'"):
        describe_hub_model("owner/name@v9")


def test_a_token_opens_a_gated_model(hub, tmp_path):
    hub.token = "secret"
    with pytest.raises(LoadError, match="is gated"):
        describe_hub_model("owner/name")
    assert describe_hub_model("owner/name", token="secret").commit == COMMIT


def test_pickled_weights_are_refused_before_anything_is_fetched(hub, tmp_path):
    hub.files = {name.replace(".safetensors", ".bin"): content for name, content in hub.files.items()}
    hub.announced = {name: "0" * 64 for name in hub.files}
    with pytest.raises(LoadError, match="which can run code when opened"):
        describe_hub_model("owner/name")


def test_a_hub_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(LoadError, match=r"connection|cannot be reached"):
        describe_hub_model("owner/name")


@pytest.mark.parametrize("source", ["", "name", "../owner/name", "owner/..", "a/b/c", "owner/na me", "-o/n"])
def test_what_is_no_name_of_a_model(source):
    with pytest.raises(LoadError, match="is no model of the Hub"):
        parse_hub_source(source)


def test_a_name_with_a_revision():
    assert parse_hub_source(" owner/name@v1.0 ") == ("owner/name", "v1.0")
    assert parse_hub_source("owner/name") == ("owner/name", None)
