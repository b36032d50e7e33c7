"""Exporting the bundled model in a real Chromium: what a file is made of, down, up again, on to Compare."""

import zipfile

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.ui


@pytest.fixture
def real(real_server, new_visit):
    return new_visit(real_server)


def upload(visit, path):
    with visit.page.expect_file_chooser() as choosing:
        visit.page.click("#export-upload")
    choosing.value.set_files(str(path))


def test_a_plan_is_exported_downloaded_recognised_and_offered_to_compare(real, tmp_path):
    real.open("tab=export&w=3")
    real.page.wait_for_selector("#export-model input")
    real.page.click("#export-start")
    real.page.wait_for_selector("#export-status:has-text('Exported in')")
    real.drawn("export-bits")
    bars = real.data("export-bits", "chart.layout.annotations.map(note => +note.text)")
    assert bars[0] == pytest.approx(3, abs=0.01) and bars[0] < bars[1] < bars[2] < 3.5
    rows = real.page.locator("#export-account tbody tr")
    assert "quantized weights" in rows.first.inner_text() and "100.0%" in rows.last.inner_text()
    with real.page.expect_download() as loading:
        real.page.click("#export-zip")
    archive = tmp_path / loading.value.suggested_filename
    loading.value.save_as(archive)
    with zipfile.ZipFile(archive) as file:
        name = next(
            item for item in file.namelist() if item.endswith("unet/diffusion_pytorch_model.safetensors")
        )
        file.extract(name, tmp_path)
    stored = (tmp_path / name).stat().st_size / 1024
    assert f"{stored:,.1f}" in rows.last.inner_text()
    with safe_open(tmp_path / name, framework="np") as file:
        assert "mpqdm" in file.metadata()

    upload(real, archive)
    real.page.wait_for_selector("#export-heading:has-text('It was made from the model that is open here')")
    assert f"{stored:,.1f}" in rows.last.inner_text()
    broken = tmp_path / "broken.zip"
    broken.write_bytes(archive.read_bytes()[:-2000])
    upload(real, broken)
    real.page.wait_for_selector("[data-testid=toast-body]:has-text('broken.zip is cut short')")

    real.page.click("#export-compare")
    real.page.wait_for_selector("#adapters :text('packed, 3.00 bits')")
    assert real.errors == [] and real.outside == []
