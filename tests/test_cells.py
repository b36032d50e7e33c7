"""What the cells of headline and ablations keep on disk."""

import numpy as np
import pytest

from benchmarks._drawn import kept_samples
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.sampling import Samples


@pytest.mark.parametrize("labels", [np.array([2, 0]), None])
def test_kept_pictures_are_those_that_were_drawn(tmp_path, labels):
    rng, sampler = np.random.default_rng(0), SamplerSettings(num_inference_steps=2, guidance_scale=1.0)
    drawn = Samples(
        images=rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
        latents=rng.standard_normal((2, 4, 2, 2)).astype(np.float32),
        seeds=np.array([7, 9]), labels=labels, settings=sampler, timesteps=np.array([501, 1]),
        trajectory=None, predictions=None, x0=None,
    )  # fmt: skip
    path = tmp_path / "drawn.npz"
    kept_samples(path, sampler, lambda: drawn)
    again = kept_samples(path, sampler, lambda: pytest.fail("drawn a second time"))
    assert again.content_hash == drawn.content_hash and again.settings == drawn.settings
    np.testing.assert_array_equal(again.timesteps, drawn.timesteps)
    assert (again.labels is None) == (labels is None)
    assert labels is None or again.labels.tolist() == labels.tolist()
