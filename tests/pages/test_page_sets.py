"""Sets as sets: who is judged, the table with its warnings, and the real model from button to numbers."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import synthetic
from scipy.linalg import sqrtm

from mpqdm_core.encoding import encode
from mpqdm_core.errors import BudgetError, Cancelled, SettingsError
from mpqdm_core.families import FAMILIES
from mpqdm_core.loading import load_denoiser
from mpqdm_core.sampling import sample
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import ask, encode_real, recognise
from mpqdm_core.zoo.sprites import KINDS
from pages import _budget_solve as solving
from pages import _compare_sets as sets
from pages import _compare_sets_panel as panel
from pages._compare_work import plans_of, result_key
from pages._precomputed import LayerRow, Precomputed
from pages._session import workspace
from pages._text import ASSETS
from pages._workspace import COMPARISONS, WORKSPACES, Workspace

COUNT = 50


def result(value, warning=None):
    return SimpleNamespace(
        value=value, interval=SimpleNamespace(low=value - 1, high=value + 1), warning=warning
    )


def column(value, **warnings):
    names = [name for row in sets.ROWS for name in row[:2] if name]
    return SimpleNamespace(**{name: result(value, warnings.get(name)) for name in names})


def measured(*columns):
    titles = ("optimal, 3.00 bits", "uniform, 3.00 bits")
    return sets.MeasuredSets(count=COUNT, columns=tuple(zip(titles, columns, strict=False)))


def solved_for(model, steps):
    """A bundled model with few steps, so that a set is drawn in seconds."""
    denoiser = load_denoiser(model)
    work = Workspace(
        key=model,
        title=model,
        source=model,
        layers=tuple(LayerRow.read(layer) for layer in denoiser.layers),
        class_names=denoiser.class_names,
        prompted=FAMILIES[denoiser.family].prompted,
        precomputed=Precomputed(folder=ASSETS / "data" / model),
        denoiser=replace(denoiser, sampler=replace(denoiser.sampler, num_inference_steps=steps)),
    )
    key = f"real {model}"
    WORKSPACES.put(key, work)
    return solving.solve(
        key, solving.read_choice(2.0, 8, False, range(1, 9), "optimal", "sensitivity", "model", {})
    )


@pytest.fixture(scope="module")
def real_solved():
    return solved_for("sprites-ldm", 2)


@pytest.fixture(scope="module")
def prompted_solved():
    return solved_for("sprites-t2i", 5)


def test_every_metric_has_its_interval_and_full_precision_beside_it():
    shown = sets.sets_table(measured(column(12.0)))
    assert "12  [11, 13]" in shown and f"n = {COUNT} pictures" in shown
    assert shown.count("<tr>") == 1 + len(sets.ROWS)
    assert "mpq-warning" not in shown


def test_a_warning_of_all_models_is_said_once_and_that_of_one_names_it():
    small, lower = "50 samples for 128 features.", "Lower than full precision's own FID (3)."
    first = column(1.0, fid=small, sfid=small, fid_to_real=lower)
    found = sets.warnings(measured(first, column(2.0, fid=small)))
    assert found == [small, f"optimal, 3.00 bits: {lower}"]


def test_only_models_of_sprites_are_judged(tmp_path):
    work = workspace(synthetic.NAME)
    assert sets.is_judged(work)
    work.source = str(tmp_path)
    assert not sets.is_judged(work)
    button, words, _ = panel.on_model(synthetic.NAME)
    assert not button.interactive and "nothing else" in words
    work.class_names = tuple(KINDS)
    assert sets.is_judged(work)


@pytest.mark.parametrize("value", [None, "many", float("nan"), 60.5])
def test_a_set_size_that_is_no_whole_number_is_a_sentence(value):
    with pytest.raises(SettingsError, match="number"):
        sets.read_count(value)


@pytest.mark.parametrize("value", [0, 49, 1_000_000])
def test_a_set_size_outside_its_range_names_it(value):
    with pytest.raises(BudgetError, match="from 50 to 2000"):
        sets.read_count(value)


def test_measuring_without_a_plan_says_where_to_make_one():
    with pytest.raises(gr.Error, match="choose one on Bit budget"):
        next(panel.on_measure_set(None, 200))


def test_a_stopped_measurement_keeps_nothing(real_solved):
    def stop(done, total, message):
        if "full precision" in message:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        sets.measure_sets(real_solved, COUNT, stop)
    key = ("sets", *result_key(real_solved, plans_of(real_solved)), COUNT)
    assert COMPARISONS.get(key) is None


def test_the_bundled_model_is_measured_against_full_precision_and_real_pictures(real_solved):
    found = sets.measure_sets(real_solved, COUNT, lambda *_: None)
    assert [title for title, _ in found.columns] == ["optimal, 2.00 bits", "uniform, 2.00 bits"]
    plan, uniform = (column for _, column in found.columns)
    assert plan.fid.n == plan.fid_to_real.n_reference == COUNT
    assert plan.fid.value > 0 and uniform.fid.value > 0
    assert plan.fid_to_real_reference.value == pytest.approx(_fid_of_full_precision(real_solved), rel=1e-3)
    assert "the covariance is singular" in " ".join(sets.warnings(found))
    assert sets.measure_sets(real_solved, COUNT, lambda *_: None) is found  # drawn once


def _fid_of_full_precision(solved):
    """By scipy's matrix root, on pictures drawn here: the first classes in turn, seeds from 0."""
    labels = [place % len(KINDS) for place in range(COUNT)]
    drawn = sample(solved.work.denoiser, labels=labels, seeds=range(COUNT))
    seen, real = encode(load_encoder(), drawn.images).features, encode_real(COUNT).features
    ours, theirs = np.cov(seen.T.astype(float)), np.cov(real.T.astype(float))
    root = sqrtm(ours @ theirs + 1e-10 * np.eye(len(ours)))  # singular: more features than pictures
    shift = seen.mean(axis=0, dtype=float) - real.mean(axis=0, dtype=float)
    return shift @ shift + np.trace(ours + theirs - 2 * root.real)


def test_a_text_to_image_model_is_asked_captions_and_told_what_was_recognised(prompted_solved):
    found = sets.measure_sets(prompted_solved, COUNT, lambda *_: None)
    whole, plan, uniform = found.agreement
    assert whole.n == plan.n == uniform.n == COUNT
    shown = sets.sets_table(found)
    assert sets.AGREEMENT in shown and "class asked for" not in shown
    questions = ask(prompted_solved.work.denoiser, COUNT)
    drawn = sample(questions.denoiser, labels=questions.labels, seeds=range(COUNT))
    kinds = [asked["kind"] for asked in questions.asked]
    right = [kind in wanted for kind, wanted in zip(recognise(drawn.images)["kind"], kinds, strict=True)]
    assert whole.value <= np.mean(right)  # the kind is one of the things that a caption names
    assert found.columns[0][1].class_accuracy is None
