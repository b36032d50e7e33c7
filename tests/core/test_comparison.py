import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.encoding import encode
from mpqdm_core.errors import Cancelled, DataError, SettingsError
from mpqdm_core.intervals import bootstrap_mean
from mpqdm_core.sampling import Samples

SIZE = 12  # pixels: the smallest even size that SSIM takes
CLASSES = 3


def samples(n=6, *, seed=0, steps=2, **changes):
    generator = np.random.default_rng(seed)
    shape = (steps, n, 4, 2, 2)
    made = {
        "images": generator.integers(0, 256, size=(n, SIZE, SIZE, 3), dtype=np.uint8),
        "latents": generator.normal(size=shape[1:]).astype(np.float32),
        "seeds": np.arange(n),
        "labels": np.arange(n) % CLASSES,
        "settings": SamplerSettings(num_inference_steps=steps),
        "timesteps": np.arange(steps)[::-1] * 100,
        "trajectory": generator.normal(size=shape).astype(np.float32),
        "predictions": generator.normal(size=shape).astype(np.float32),
        "x0": generator.normal(size=shape).astype(np.float32),
    }
    return Samples(**{**made, **changes})


class Output:
    def __init__(self, features, spatial, logits):
        self.features, self.spatial, self.logits = features, spatial, logits


def channel_means(images):
    """An encoder one can compute by hand: mean colour, a coarse map, the brightest channel as class."""
    mean = images.mean(dim=(2, 3))  # (N, 3)
    return Output(mean, torch.nn.functional.adaptive_avg_pool2d(images, 2), mean * 10)


def test_paired_metrics_match_plain_numpy():
    a, b = samples(seed=1), samples(seed=2)
    result = compare(a, b)
    x, y = a.images / 255.0, b.images / 255.0
    mse = ((x - y) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(result.image_mse.values, mse, rtol=1e-12)
    np.testing.assert_allclose(result.image_psnr_db.values, -10 * np.log10(mse), rtol=1e-12)
    difference = a.latents.astype(float) - b.latents
    np.testing.assert_allclose(result.latent_mse.values, (difference**2).mean(axis=(1, 2, 3)), rtol=1e-12)
    ratio = (a.latents.astype(float) ** 2).sum(axis=(1, 2, 3)) / (difference**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(result.latent_snr_db.values, 10 * np.log10(ratio), rtol=1e-10)
    assert result.image_mse.mean == bootstrap_mean(result.image_mse.values)
    assert (result.n, result.image_ssim.values.shape, result.distribution, result.notes) == (
        6,
        (6,),
        None,
        (),
    )
    assert [result.image_psnr_db.higher_is_better, result.image_mse.higher_is_better] == [True, False]


def test_the_trajectory_is_compared():
    a, b = samples(seed=1), samples(seed=2)
    trajectory = compare(a, b).trajectory
    assert trajectory.latent_cosine.shape == (2, 6)
    x, y = a.trajectory[1, 3].ravel(), b.trajectory[1, 3].ravel()
    assert trajectory.latent_cosine[1, 3] == pytest.approx(
        x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-5
    )
    assert trajectory.timesteps.tolist() == [100, 0]


def test_a_sample_set_equals_itself():
    a = samples(12)
    result = compare(a, a, encoder=channel_means)
    assert result.image_psnr_db.mean.value == math.inf and result.image_psnr_db.mean.infinite == 12
    assert result.image_mse.mean.value == 0.0
    assert result.image_ssim.mean.value == pytest.approx(1.0, abs=1e-6)
    sets = result.distribution
    assert sets.fid.value == pytest.approx(0.0, abs=1e-6)
    assert (sets.precision.value, sets.recall.value) == (1.0, 1.0)
    assert sets.inception_score == sets.inception_score_reference
    assert sets.class_accuracy == sets.class_accuracy_reference


def test_accuracy_is_the_share_recognised_as_the_label():
    a = samples(12)
    images = np.zeros_like(a.images)
    for i, label in enumerate(a.labels):
        images[i, ..., label] = 200
    images[0] = np.roll(images[0], 1, axis=-1)  # one picture in another colour
    sets = compare(replace(a, images=images), a, encoder=channel_means).distribution
    assert sets.class_accuracy_reference.value == pytest.approx(11 / 12)
    unlabelled = replace(a, labels=None)
    assert compare(unlabelled, unlabelled, encoder=channel_means).distribution.class_accuracy is None
    other = replace(a, labels=a.labels + 7)  # classes the encoder does not know
    assert compare(other, other, encoder=channel_means).distribution.class_accuracy is None


def test_fid_below_full_precisions_own_is_warned_about():
    reference, candidate = samples(12, seed=1), samples(12, seed=2)
    real = encode(channel_means, candidate.images)  # the candidate is perfect, its teacher is not
    sets = compare(reference, candidate, encoder=channel_means, real_features=real).distribution
    assert sets.fid_to_real.value == pytest.approx(0.0, abs=1e-6)
    assert sets.fid_to_real.value < sets.fid_to_real_reference.value
    assert "not better fidelity" in sets.fid_to_real.warning
    assert "not better fidelity" in sets.sfid_to_real.warning
    assert sets.fid_to_real_reference.warning is None
    swapped = compare(candidate, reference, encoder=channel_means, real_features=real).distribution
    assert swapped.fid_to_real.warning is None


def test_what_is_missing_is_noted():
    a = samples(6, trajectory=None, predictions=None, x0=None)
    result = compare(a, a, encoder=channel_means)
    assert (result.trajectory, result.distribution) == (None, None)
    assert ["record=" in note for note in result.notes] == [True, False]
    assert "at least 10 samples" in result.notes[1]
    small = replace(a, images=a.images[:, :8, :8])
    assert compare(small, small).image_ssim is None
    assert "11 pixels" in compare(small, small).notes[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seeds": np.array([0, 1, 2, 9, 4, 5])}, "sample 3 has seed 3 in the reference and 9"),
        ({"labels": np.array([0, 1, 1, 0, 1, 2])}, "sample 2 has label 2 in the reference and 1"),
        ({"labels": None}, "only one"),
        ({"images": samples(5).images}, r"images .* \(6, 12, 12, 3\) and \(5, 12, 12, 3\)"),
        ({"latents": np.zeros((6, 3, 2, 2), np.float32)}, r"latents .* \(6, 4, 2, 2\) and \(6, 3, 2, 2\)"),
        ({"settings": SamplerSettings(num_inference_steps=2, guidance_scale=1.5)}, "guidance_scale=1.5"),
    ],
)
def test_samples_of_another_origin_are_refused(change, match):
    with pytest.raises(SettingsError, match=match):
        compare(samples(), samples(**change))


def test_real_features_need_their_encoder():
    with pytest.raises(SettingsError, match="encoder"):
        compare(samples(), samples(), real_features=encode(channel_means, samples().images))


def test_a_broken_latent_is_named():
    latents = samples().latents.copy()
    latents[4, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="candidate has NaN or infinite values, first in sample 4"):
        compare(samples(), samples(latents=latents))


def test_progress_counts_up_and_may_stop():
    heard = []
    compare(samples(12), samples(12), encoder=channel_means, report=lambda *event: heard.append(event))
    assert [done for done, _, _ in heard] == [0, 1, 2, 3, 4, 5]
    assert {total for _, total, _ in heard} == {5}

    def stop(done, total, message):
        raise Cancelled(message)

    with pytest.raises(Cancelled, match="comparing pictures"):
        compare(samples(), samples(), report=stop)


def test_every_interval_has_its_seed():
    a, b = samples(12, seed=1), samples(12, seed=2)
    one, two = compare(a, b, encoder=channel_means), compare(a, b, encoder=channel_means, seed=1)
    assert one.image_mse.mean.interval != two.image_mse.mean.interval
    for field in fields(one.distribution):
        first, second = getattr(one.distribution, field.name), getattr(two.distribution, field.name)
        if first is not None and field.name != "inception_score":
            assert first.value == pytest.approx(second.value, rel=0.5)  # only the shuffle of the score moves
