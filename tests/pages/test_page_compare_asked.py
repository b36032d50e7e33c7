"""Compare with another sampler and with prompts; the drawing itself is tested in tests/core."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import SettingsError
from mpqdm_core.loading import load_denoiser
from mpqdm_core.progress import silent
from mpqdm_core.sampling import sample
from mpqdm_core.schedules import SCHEDULERS, scheduler_names, with_scheduler
from mpqdm_core.zoo.sprites import KINDS
from pages import _budget_solve, _compare_asked, _compare_sets, _compare_work
from pages._precomputed import LayerRow, Precomputed
from pages._session import workspace
from pages._text import ASSETS
from pages._workspace import WORKSPACES, Workspace


@pytest.fixture
def work():
    """A model that takes prompts and can be drawn by two samplers."""
    found = workspace(synthetic.NAME)
    found.class_names = ("a red star", "a blue fish")
    found.schedulers, found.prompted = ("ddim", "euler"), True
    return found


def order(work, **changes):
    settings = {"classes": [], "seed": 3, "count": 3, "sampler": "", "prompts": ""} | changes
    return _compare_work.read_order(work, **settings)


def test_without_prompts_those_of_the_model_take_turns(work):
    assert order(work) == _compare_work.Order(labels=(0, 1, 0), seeds=(3, 4, 5))


def test_every_line_is_a_prompt_and_they_take_turns_whatever_the_list_says(work):
    found = order(work, prompts="  a green cat \n\n a teal boat", classes=[1])
    assert found.prompts == ("a green cat", "a teal boat")
    assert found.labels == (0, 1, 0)


def test_a_model_of_classes_takes_no_prompts(work):
    work.prompted = False
    assert order(work, prompts="a green cat").prompts == ()


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ("\n".join("x" * 17), "at most 16 prompts are drawn at a time, got 17"),
        ("a star\n" + "y" * 301, "prompt 2 must be printable text of at most 300 letters"),
        ("a\x00star", "prompt 1 must be printable"),
    ],
)
def test_prompts_have_limits(work, prompts, sentence):
    with pytest.raises(SettingsError, match=sentence):
        order(work, prompts=prompts)


def test_a_sampler_that_the_model_cannot_be_drawn_by_is_a_sentence(work):
    assert order(work, sampler="euler").sampler == "euler"
    with pytest.raises(SettingsError, match="can be drawn by ddim, euler, not by 'pndm'"):
        order(work, sampler="pndm")


def test_what_was_drawn_otherwise_is_another_comparison(work):
    choice = _budget_solve.read_choice(4, 8, False, range(1, 9), "optimal", "sensitivity", "model", {})
    solved = _budget_solve.solve(work.key, choice)
    orders = [
        order(work),
        order(work, sampler="euler"),
        order(work, prompts="a cat"),
        order(work, prompts="a dog"),
    ]
    assert len({_compare_work.comparison_key(solved, found, ()) for found in orders}) == 4


def test_the_list_offers_what_the_model_can_and_starts_with_its_own(work):
    sampler, prompts = _compare_asked.offered(work, "flow-euler", "")
    assert sampler.choices == [("The model's own", ""), ("DDIM", "ddim"), ("Euler", "euler")]
    assert (sampler.value, sampler.interactive, prompts.visible) == ("", True, True)
    work.schedulers, work.prompted = (), False
    sampler, prompts = _compare_asked.offered(work, "euler", "a cat")
    assert (sampler.value, sampler.interactive) == ("", False)
    assert (prompts.value, prompts.visible) == ("", False)


def test_what_was_asked_stays_where_it_fits_the_model(work):
    sampler, prompts = _compare_asked.offered(work, "euler", "a cat")
    assert (sampler.value, prompts.value) == ("euler", "a cat")


def test_every_sampler_of_the_library_has_a_name_on_the_page():
    assert set(_compare_asked.SAMPLERS) == set(SCHEDULERS)


def test_sets_are_measured_for_sprites_alone(work, tmp_path):
    assert _compare_sets.is_judged(work)
    work.source, work.class_names = str(tmp_path), tuple(KINDS)
    assert not _compare_sets.is_judged(work)  # prompts that happen to be called like classes
    work.prompted = False
    assert _compare_sets.is_judged(work)
    work.class_names = ()
    assert not _compare_sets.is_judged(work)


@pytest.fixture
def real():
    """The bundled model with two steps, and a plan for it."""
    denoiser = load_denoiser("sprites-ldm")
    work = Workspace(
        key="real-asked",
        title="sprites-ldm",
        source="sprites-ldm",
        layers=tuple(LayerRow.read(layer) for layer in denoiser.layers),
        class_names=denoiser.class_names,
        schedulers=scheduler_names(denoiser),
        precomputed=Precomputed(folder=ASSETS / "data" / "sprites-ldm"),
        denoiser=replace(denoiser, sampler=SamplerSettings(num_inference_steps=2)),
    )
    WORKSPACES.put(work.key, work)
    choice = _budget_solve.read_choice(2.0, 8, False, range(1, 9), "optimal", "sensitivity", "model", {})
    return work, _budget_solve.solve(work.key, choice)


# DPM-Solver's tables are made by a call that numpy 2 calls outdated, inside diffusers.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_chosen_sampler_draws_full_precision_and_every_plan(real):
    work, solved = real
    asked = _compare_work.read_order(work, [4], 9, 1, "dpm-solver++")
    found = _compare_work.compare_plans(solved, asked, (), silent)
    wanted = sample(with_scheduler(work.denoiser, "dpm-solver++"), labels=[4], seeds=[9])
    assert found.timesteps == tuple(wanted.timesteps)
    assert np.array_equal(found.reference.sheet[:, -found.tile :], wanted.images[0])
    own = sample(work.denoiser, labels=[4], seeds=[9])
    assert not np.array_equal(own.images, wanted.images)
    for variant in found.variants:
        assert variant.comparison.trajectory.timesteps.tolist() == wanted.timesteps.tolist()


def test_a_model_of_classes_refuses_prompts_of_the_library():
    with pytest.raises(SettingsError, match="takes no prompts"):
        _compare_asked.as_asked(load_denoiser("sprites-ldm"), "", ("a star",))
