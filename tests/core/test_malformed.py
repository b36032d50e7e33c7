"""More than two hundred damaged and hostile folders and answers: each one a sentence, and nothing worse."""

import json
import shutil
import sys

import pytest
from hub_server import COMMIT, FakeHub
from malformed import BROKEN_JSON, folder_cases
from tiny_models import save_model

from mpqdm_core.errors import MpqdmError
from mpqdm_core.hub import count_elements, describe_hub_model
from mpqdm_core.loading import load_denoiser

CASES = dict(folder_cases())
LONGEST = 900  # characters, the path of the folder several times in it
SECONDS = 120  # a case takes milliseconds; a hang takes for ever
SHA, SIBLINGS = f"/revision/{COMMIT}", [{"rfilename": "model_index.json", "size": 2}]
ANSWER = {"sha": COMMIT, "siblings": SIBLINGS, "cardData": {"license": "mit"}}
HASHED = {"rfilename": "model_index.json", "size": 2, "lfs": {"sha256": "../x"}}
LISTINGS = {
    **{name: content for name, content in BROKEN_JSON.items()},
    "no-files": json.dumps({**ANSWER, "siblings": []}).encode(),
    **{
        f"sha-{number}": json.dumps({**ANSWER, "sha": value}).encode()
        for number, value in enumerate((None, 5, "", "../../x", "main", "A" * 40, [], {"a": 1}))
    },
    **{
        f"files-{number}": json.dumps({**ANSWER, "siblings": value}).encode()
        for number, value in enumerate(
            (None, 5, "x", {"a": 1}, [5], [None], [{}], [{"rfilename": 5}], [HASHED])
        )
    },
    **{
        f"size-{number}": json.dumps(
            {**ANSWER, "siblings": [{"rfilename": "model_index.json", "size": value}]}
        ).encode()
        for number, value in enumerate((None, -1, 1.5, "9", 10**30, True, [], 2**30))
    },
    **{
        f"name-{number}": json.dumps({**ANSWER, "siblings": [{"rfilename": value, "size": 2}]}).encode()
        for number, value in enumerate(("../model_index.json", "/etc/passwd", "a\nb", "", "unet/../../x"))
    },
}
STATUSES = (400, 401, 403, 404, 405, 410, 418, 429, 500, 502, 503, 504)
opened = []


def listen(event, arguments):
    if event == "open" and opened and isinstance(arguments[0], str):
        opened.append(arguments[0])
    if event == "pickle.find_class" and opened:
        opened.append(f"unpickled {arguments}")


sys.addaudithook(listen)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("whole") / "model", "ddim")


@pytest.fixture(scope="module")
def hub():
    server = FakeHub({"model_index.json": b"{}"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.endpoint)
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield server
    server.close()


def sentence(error):
    text = str(error.value)
    assert text.isprintable() and 10 < len(text) < LONGEST, text
    assert "Traceback" not in text and " object at 0x" not in text, text


def test_there_are_two_hundred():
    assert len(CASES) + len(LISTINGS) + 2 * len(BROKEN_JSON) + len(STATUSES) >= 200


def test_the_folder_they_are_made_from_is_whole(whole):
    assert load_denoiser(whole).family == "ddpm"


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", CASES)
def test_a_malformed_folder_is_a_sentence(whole, tmp_path, name):
    folder, outside = shutil.copytree(whole, tmp_path / "model"), tmp_path / "outside"
    outside.mkdir()
    CASES[name](folder, outside)
    opened.append("listening")
    try:
        with pytest.raises(MpqdmError) as error:
            load_denoiser(folder)
    finally:
        heard = opened[:]
        opened.clear()
    sentence(error)
    assert not (outside / "ran").exists()
    assert [path for path in heard if str(outside) in path or path.startswith(("/dev/z", "unpickled"))] == []


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", LISTINGS)
def test_a_malformed_listing_is_a_sentence(hub, name):
    hub.replies = {"/api/models/owner/name": (200, LISTINGS[name], {})}
    with pytest.raises(MpqdmError) as error:
        describe_hub_model("owner/name")
    sentence(error)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", BROKEN_JSON)
def test_a_malformed_index_is_a_sentence(hub, name):
    hub.replies = {
        "/api/models/owner/name": (200, json.dumps(ANSWER).encode(), {}),
        "/model_index.json": (200, BROKEN_JSON[name], {}),
    }
    with pytest.raises(MpqdmError) as error:
        describe_hub_model("owner/name")
    sentence(error)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", BROKEN_JSON)
def test_a_malformed_header_is_a_sentence(hub, name):
    weights = "unet/diffusion_pytorch_model.safetensors"
    siblings = [*SIBLINGS, {"rfilename": weights, "size": 100}]
    hub.replies = {
        "/api/models/owner/name": (200, json.dumps({**ANSWER, "siblings": siblings}).encode(), {}),
        "/model_index.json": (200, b'{"unet": ["diffusers", "UNet2DModel"]}', {}),
        weights: (206, BROKEN_JSON[name], {}),
    }
    model = describe_hub_model("owner/name")
    with pytest.raises(MpqdmError) as error:
        count_elements(model)
    sentence(error)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_a_sentence(hub, status):
    hub.replies = {"/api/models/owner/name": (status, b"\x00nonsense", {})}
    with pytest.raises(MpqdmError) as error:
        describe_hub_model("owner/name")
    sentence(error)


def test_a_hub_that_leads_in_circles_is_a_sentence(hub):
    hub.replies = {"/api/models/owner/name": (302, b"", {"Location": "/api/models/owner/name"})}
    with pytest.raises(MpqdmError) as error:
        describe_hub_model("owner/name")
    sentence(error)
