"""A model of the Hub, from a server on loopback: looked at, downloaded, opened, unloaded."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "core"))

from hub_server import FakeHub
from tiny_models import save_model

pytestmark = pytest.mark.ui
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tmp_path):
    folder = save_model(tmp_path / "model", "class-conditional-ldm")
    server = FakeHub({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    yield server
    server.close()


def test_a_model_is_looked_at_then_downloaded_opened_and_unloaded(hub, serve_with, new_visit, tmp_path):
    with serve_with(HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="0") as address:
        visit = new_visit(address)
        page = visit.open().page
        page.click("#source-kind >> text=Hugging Face Hub")
        page.wait_for_selector("#load:disabled")
        page.locator("#hub-model textarea, #hub-model input").fill("owner/other")
        page.click("#look")
        page.wait_for_selector(
            "[data-testid=toast-body]:has-text('there is no model owner/other on the Hub')"
        )
        page.locator("#hub-model textarea, #hub-model input").fill("owner/name")
        page.click("#look")
        card = page.wait_for_selector("#look-card .mpq-look").inner_text()
        size = sum(len(content) for content in hub.files.values()) / 1e6
        assert "latent diffusion with classes" in card and "mit" in card and "AutoencoderKL" in card
        assert f"{size:.1f} MB" in card and "It can be opened here" in card
        whole = [
            path for verb, path, part in hub.requests if path.endswith(WEIGHTS) and not part and verb == "GET"
        ]
        assert whole == []  # nothing but headers so far
        page.click("#load:has-text('Download')")
        page.wait_for_selector("#model-status:has-text('owner/name is loaded')")
        page.wait_for_selector(".mpq-chip:has-text('owner/name')")
        page.locator("#layers input").fill("conv_in")
        page.wait_for_selector("#layers .is-leaf[data-path=conv_in]")
        page.click("text=Models in memory")
        page.click("#shelf button:has-text('Unload')")
        page.wait_for_selector("#model-status:has-text('owner/name was unloaded')")
        page.wait_for_selector("#shelf li", state="detached")
        assert visit.outside == []
