"""A plan is found again by what made it, however many visitors made others meanwhile."""

import pytest
import synthetic

from mpqdm_core.errors import DataError, LoadError
from pages import _budget_solve, _plan_key, _workspace


@pytest.fixture
def solved():
    choice = _budget_solve.read_choice(3, 4, False, [2, 3, 4, 8], "optimal", "sensitivity", "model", {})
    return _budget_solve.solve(synthetic.NAME, choice)


def test_a_dropped_plan_is_solved_again(solved):
    _workspace.ALLOCATIONS.clear()
    found = _plan_key.plan_of(solved.key)
    assert found.allocation is not solved.allocation
    assert found.allocation.plan.content_hash == solved.allocation.plan.content_hash
    assert found.choice == solved.choice and found.work is solved.work


def test_a_plan_is_found_though_the_model_was_opened_anew(solved):
    _workspace.WORKSPACES.clear()
    found = _plan_key.plan_of(solved.key)
    assert found.allocation.plan.content_hash == solved.allocation.plan.content_hash


@pytest.mark.parametrize("key", [None, ()])
def test_no_plan_is_a_sentence(key):
    with pytest.raises(DataError, match="choose one on Bit budget"):
        _plan_key.plan_of(key)
    assert _plan_key.plan_if_any(key) is None


def test_a_plan_of_a_model_that_is_gone_says_so(solved):
    key = ("a model nobody has", solved.choice)
    with pytest.raises(LoadError, match="a model nobody has is not open any more"):
        _plan_key.plan_of(key)
    assert _plan_key.plan_if_any(key) is None
