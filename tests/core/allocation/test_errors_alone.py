"""Each layer alone, against sums by hand and against whole allocations."""

import numpy as np
import pytest

from mpqdm_core.allocation import AllocationSettings, allocate, errors_alone
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import SettingsError


@pytest.fixture
def table():
    rng = np.random.default_rng(3)
    error = rng.lognormal(0, 1, (5, 1)) * 4.0 ** -np.arange(8)[None, :]
    return ErrorTable(
        layer_names=("a", "b"),
        layer_start=np.array([0, 2, 5]),
        weights_per_channel=np.array([9, 4]),
        error=error,
        energy=np.array([1.0, 2.0, 4.0, 1.0, 8.0]),
        kurtosis=np.full(5, 3.0),
        sensitivity=np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        settings={"activation_bits": 8},
    )


def test_layers_by_hand(table):
    error = table.error.astype(np.float64)
    assert errors_alone(table, "none", 2) == pytest.approx([error[:2, 1].sum(), error[2:, 1].sum()])
    weighted = (error[:, 2] * table.sensitivity).tolist()
    assert errors_alone(table, "sensitivity", 3) == pytest.approx([sum(weighted[:2]), sum(weighted[2:])])
    relative = (error[:, 0] / table.energy / 5).tolist()
    assert errors_alone(table, "relative", 1) == pytest.approx([sum(relative[:2]), sum(relative[2:])])


def test_a_layer_left_out_saves_its_share(table):
    settings = AllocationSettings(policy="uniform", average_bits=2.0, weighting="sensitivity")
    whole = allocate(table, settings)
    assert errors_alone(table, "sensitivity", 2) == pytest.approx(whole.per_layer_error)
    assert whole.predicted_error == pytest.approx(whole.per_layer_error.sum())


def test_a_width_that_is_none(table):
    with pytest.raises(SettingsError, match="one of 1 to 8, got 9"):
        errors_alone(table, "none", 9)
