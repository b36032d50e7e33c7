import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_denoiser

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.intervals import bootstrap_mean
from mpqdm_core.sampling import sample
from mpqdm_core.trajectory import compare_trajectories, injected_predictions, step_means

STEPS = 4


def draw(denoiser, *, guidance=3.0, record="all", steps=STEPS):
    labels = None if denoiser.num_classes is None else [0, 1, 2]
    settings = SamplerSettings(num_inference_steps=steps, guidance_scale=guidance)
    return sample(denoiser, labels=labels, seeds=[5, 6, 7], settings=settings, record=record)


def damaged(denoiser):
    """The same pipeline with one weight tensor rounded to quarters."""
    other = tiny_denoiser(denoiser.family)
    with torch.no_grad():
        weight = other.network.mid_block.resnets[0].conv1.weight
        weight.copy_((weight * 4).round() / 4)
    return other


@pytest.fixture(scope="module")
def pair():
    exact = tiny_denoiser()
    return exact, damaged(exact)


@pytest.mark.parametrize(
    ("family", "guidance"),
    [("class-conditional-ldm", 3.0), ("class-conditional-ldm", 1.0), ("ldm", 1.0), ("ddpm", 1.0)],
)
def test_the_same_network_predicts_what_the_pipeline_recorded(family, guidance):
    denoiser = tiny_denoiser(family)
    reference = draw(denoiser, guidance=guidance)
    predictions = injected_predictions(denoiser, reference)
    # the same calls in the same batches: only the order of float32 sums may differ
    np.testing.assert_allclose(predictions, reference.predictions, atol=1e-5)


def test_injected_error_is_the_accumulated_one_at_the_first_step_only(pair):
    exact, other = pair
    reference, candidate = draw(exact), draw(other)
    result = compare_trajectories(reference, candidate, injected_predictions(other, reference))
    assert (result.latent_snr_db[0] == math.inf).all()  # the same noise
    np.testing.assert_allclose(result.latent_cosine[0], 1.0, rtol=1e-12)
    np.testing.assert_allclose(result.injected_snr_db[0], result.accumulated_snr_db[0], rtol=1e-4)
    assert (result.injected_mse > 0).all()
    assert not np.allclose(result.injected_snr_db[-1], result.accumulated_snr_db[-1], rtol=1e-3)


def test_signal_to_noise_is_the_formula(pair):
    exact, other = pair
    reference, candidate = draw(exact), draw(other)
    result = compare_trajectories(reference, candidate)
    a, b = reference.predictions[2, 1].astype(float), candidate.predictions[2, 1].astype(float)
    assert result.accumulated_snr_db[2, 1] == pytest.approx(
        10 * math.log10((a**2).sum() / ((b - a) ** 2).sum())
    )
    assert result.accumulated_mse[2, 1] == pytest.approx(((b - a) ** 2).mean())
    a, b = reference.x0[3, 0].astype(float), candidate.x0[3, 0].astype(float)
    assert result.x0_snr_db[3, 0] == pytest.approx(10 * math.log10((a**2).sum() / ((b - a) ** 2).sum()))
    assert (result.injected_snr_db, result.injected_mse) == (None, None)
    assert result.latent_cosine.shape == (STEPS, 3)


def test_batches_change_rounding_only(pair):
    reference = draw(pair[0])
    whole, parts = (injected_predictions(pair[1], reference, batch_size=size) for size in (64, 2))
    # another batch takes another convolution algorithm, and guidance triples what comes of it: 6e-5 seen
    np.testing.assert_allclose(parts, whole, atol=5e-4)


def test_less_was_recorded(pair):
    latents, nothing = draw(pair[0], record="latents"), draw(pair[0], record="none")
    result = compare_trajectories(latents, latents)
    assert result.latent_cosine.shape == (STEPS, 3)
    assert result.accumulated_snr_db is None and result.x0_snr_db is None
    assert compare_trajectories(nothing, latents) is None
    assert injected_predictions(pair[1], latents).shape == latents.trajectory.shape
    with pytest.raises(SettingsError, match="record="):
        injected_predictions(pair[1], nothing)
    with pytest.raises(SettingsError, match="predictions none"):
        compare_trajectories(latents, latents, injected_predictions(pair[1], latents))


def test_progress_and_stop(pair):
    reference, heard = draw(pair[0]), []
    injected_predictions(pair[1], reference, lambda *event: heard.append(event[:2]), batch_size=2)
    assert heard == [(done, 2 * STEPS) for done in range(2 * STEPS + 1)]

    def stop(done, total, message):
        if done == 3:
            raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled, match="by the test"):
        injected_predictions(pair[1], reference, stop)


def test_a_reference_of_another_model_is_refused(pair):
    reference = draw(pair[0])
    with pytest.raises(SettingsError, match=r"takes latents \(3, 8, 8\), the reference has \(4, 8, 8\)"):
        injected_predictions(tiny_denoiser("ldm"), reference)
    with pytest.raises(SettingsError, match="needs labels"):
        injected_predictions(pair[1], replace(reference, labels=None))
    with pytest.raises(SettingsError, match="timesteps"):
        compare_trajectories(reference, draw(pair[1], steps=2))


def test_broken_trajectories_are_named(pair):
    reference = draw(pair[0])
    trajectory = reference.trajectory.copy()
    trajectory[1, 2] = np.nan
    with pytest.raises(DataError, match="candidate has NaN or infinite values, first in sample 2"):
        compare_trajectories(reference, replace(reference, trajectory=trajectory))


def test_step_means_are_the_means_of_the_rows():
    values = np.array([[1.0, 2.0, 4.0], [math.inf, 1.0, 3.0]])
    assert step_means(values, seed=3) == tuple(bootstrap_mean(row, seed=3) for row in values)
