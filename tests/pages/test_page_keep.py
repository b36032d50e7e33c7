import io
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import Samples
from pages import _ablation_store, _budget_solve, _compare_keep, _compare_work
from pages._session import workspace

VISITOR = SimpleNamespace(session_hash="one")


def test_what_was_compared_is_kept_as_runs(monkeypatch, tmp_path):

    monkeypatch.setenv("MPQDM_RUNS", str(tmp_path))
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setattr(_ablation_store._text, "ASSETS", tmp_path / "assets")

    def samples(seed):
        rng = np.random.default_rng(seed)
        latents = rng.standard_normal((2, 2, 4, 4), dtype=np.float32)
        return Samples(
            images=rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
            latents=latents,
            seeds=np.array([5, 6]),
            labels=np.array([0, 1]),
            settings=SamplerSettings(),
            timesteps=np.array([9]),
            trajectory=latents[None],
            predictions=None,
            x0=None,
        )

    def variant(key, drawn, found=None):
        previews = np.zeros_like(drawn.images)
        rows = np.concatenate([previews, drawn.images], axis=2)
        return _compare_work.Variant(
            key=key, title=f"{key}, 4.00 bits", sheet=rows.reshape(-1, rows.shape[2], 3), comparison=found
        )

    teacher, student = samples(0), samples(1)
    found = compare(teacher, student)
    work = workspace(None)
    choice = _budget_solve.read_choice(4, 8, False, range(1, 9), "optimal", "sensitivity", "model", {})
    solved = _budget_solve.solve(work.key, choice)
    order = [work.key, list(solved.key), [0, 1], 5, 2]
    arguments = (VISITOR, *order)
    with pytest.raises(gr.Error, match="draw the pictures"):
        _compare_keep.on_keep(*arguments)
    drawn = _compare_work.Compared(
        order=_compare_work.Order(labels=(0, 1), seeds=(5, 6)),
        class_names=("cat", "sun"),
        tile=16,
        timesteps=(9,),
        reference=variant("reference", teacher),
        variants=(variant("plan", student, found),),
    )
    key = _compare_work.comparison_key(solved, drawn.order, ())
    _compare_keep.COMPARISONS.put(key, drawn)
    assert "1 runs kept" in _compare_keep.on_keep(*arguments)
    held = _ablation_store.library(VISITOR)
    (run,) = held.runs()
    assert (
        run.kind == "comparison"
        and run.settings["policy"] == "optimal"
        and run.pictures.names == ("cat", "sun")
    )
    assert run.metrics["psnr_db"].value == pytest.approx(found.image_psnr_db.mean.value)
    assert run.metrics["nominal_bits"].value == pytest.approx(solved.allocation.plan.mean_bits)
    sheet = np.asarray(Image.open(io.BytesIO(held.read(run.pictures.drawn))))
    assert np.array_equal(sheet, np.concatenate(list(student.images), axis=1))
