import pytest
from tiny_quant import small_calibration, small_denoiser

from mpqdm_core.errors import SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.recipes import RATE_FACTOR, RECIPES, get_recipe


def test_every_recipe_keeps_the_same_budget():
    for recipe in RECIPES.values():
        table = recipe.measure(small_denoiser(), small_calibration(), activation_bits=4)
        plan = recipe.allocate(table, 3).plan
        assert 2.95 <= plan.mean_bits <= 3.0, recipe.name
        assert recipe.quant_settings(4).activation_bits == 4
        assert recipe.quant_settings(4).exempt_bits == 8


def test_every_recipe_takes_the_same_steps_on_the_same_windows():
    tuned = [
        recipe.finetune_settings(50, 7, batch_size=3) for recipe in RECIPES.values() if recipe.finetuning
    ]
    assert len(tuned) == 4
    assert {(s.steps, s.seed, s.batch_size, s.window, s.shuffle, s.way) for s in tuned} == {
        (50, 7, 3, 2, False, "teacher")
    }


def test_published_rates_are_those_of_the_papers_times_one_factor():
    for name in ("efficientdm", "mpqdm-as-released", "mpqdm-corrected"):
        settings = RECIPES[name].finetuning
        assert settings.rank == 32
        assert settings.low_rank_rate == pytest.approx(RATE_FACTOR / 2500)
        assert settings.weight_scale_rate == pytest.approx(RATE_FACTOR * 1e-6)
        assert settings.activation_rate == pytest.approx(RATE_FACTOR * 5e-4)


def test_what_the_papers_names_stand_for():
    assert RECIPES["naive"].finetuning is None
    efficientdm = RECIPES["efficientdm"].finetuning
    assert (efficientdm.task_weight, efficientdm.relation_weight, efficientdm.feature_weight) == (1, 0, 0)
    assert RECIPES["efficientdm"].allocation.policy == "uniform"
    released = RECIPES["mpqdm-as-released"]
    assert released.finetuning.detach_features and released.allocation.max_groups == 1
    corrected = RECIPES["mpqdm-corrected"]
    assert corrected.finetuning.relation_weight > 0 and not corrected.finetuning.detach_features
    assert corrected.allocation.policy == "kurtosis" and corrected.allocation.max_groups == 5
    assert released.finetuning.prescaled_rates and not corrected.finetuning.prescaled_rates


def test_a_recipe_that_does_not_train_has_no_settings():
    assert RECIPES["naive"].finetune_settings(10, 0) is None
    assert isinstance(RECIPES["ours"].finetune_settings(10, 0), FinetuneSettings)


def test_an_unknown_recipe_gets_a_sentence_with_the_known_ones():
    with pytest.raises(SettingsError, match="no recipe 'magic'; there are naive, efficientdm"):
        get_recipe("magic")
