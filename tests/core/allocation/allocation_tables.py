"""Error tables made up for the tests of the allocation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from mpqdm_core.error_table import ErrorTable

BIT_AXIS = np.arange(1, 9)


def make_table(
    layers: Sequence[tuple[int, int]], *, seed: int = 0, noise: float = 0.0, degenerate: bool = False
) -> ErrorTable:
    """A table of (channels, weights per channel) layers; noise 0 gives strictly convex, falling error
    curves."""
    rng = np.random.default_rng(seed)
    channels = sum(count for count, _ in layers)
    scale = np.exp(rng.normal(0, 1.5, (channels, 1)))
    error = scale * 4.0**-BIT_AXIS * np.exp(noise * rng.normal(size=(channels, 8)))
    energy = scale[:, 0] * rng.uniform(0.5, 2, channels)
    kurtosis = 3 + rng.exponential(2, channels)
    sensitivity = rng.exponential(1, channels)
    if degenerate:
        for kind, channel in enumerate(rng.permutation(channels)[: channels // 2]):
            if kind % 4 == 0:
                error[channel] = 0
                kurtosis[channel] = 0
            elif kind % 4 == 1:
                error[channel, rng.integers(8)] = np.nan
                kurtosis[channel] = 1e6
            elif kind % 4 == 2:
                energy[channel] = 0
                sensitivity[channel] = 0
            else:
                kurtosis[channel] = np.nan
    return ErrorTable(
        layer_names=tuple(f"block.{i}" for i in range(len(layers))),
        layer_start=np.concatenate([[0], np.cumsum([count for count, _ in layers])]),
        weights_per_channel=[weights for _, weights in layers],
        error=error,
        energy=energy,
        kurtosis=kurtosis,
        sensitivity=sensitivity,
    )


shapes = st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 4, 9, 27, 64])), min_size=1, max_size=5)
convex_tables = st.builds(make_table, shapes, seed=st.integers(0, 10**6))
crooked_tables = st.builds(make_table, shapes, seed=st.integers(0, 10**6), noise=st.floats(0, 2))
degenerate_tables = st.builds(
    make_table, shapes, seed=st.integers(0, 10**6), noise=st.floats(0, 1), degenerate=st.just(True)
)
averages = st.one_of(st.integers(1, 8).map(float), st.floats(1, 8).map(lambda value: round(value, 3)))
allowed_sets = st.lists(st.integers(1, 8), min_size=1, max_size=8, unique=True).map(tuple)
