from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest
import torch
from tiny_models import tiny_denoiser

from mpqdm_core.denoiser import SamplerSettings
from mpqdm_core.errors import Cancelled, SettingsError, ShapeError
from mpqdm_core.sampling import decode, sample, to_uint8

FAMILY_NAMES = ["class-conditional-ldm", "ldm", "ddpm"]
SEEDS = [11, 12, 13]
STEPS = 4
# A batch of another size sums in another order; latents of a random network differed by 2e-5 after 4 steps.
# A picture that took another sample's noise would differ by about 1.
BATCH_TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def denoisers():
    return {name: tiny_denoiser(name) for name in FAMILY_NAMES}


def draw(denoiser, seeds, eta=0.0, guidance=2.0, labels=None, **rest):
    conditional = denoiser.num_classes is not None
    settings = SamplerSettings(
        num_inference_steps=STEPS, guidance_scale=guidance if conditional else 1.0, eta=eta
    )
    labels = (labels or [seed % 3 for seed in seeds]) if conditional else None
    return sample(denoiser, labels=labels, seeds=seeds, settings=settings, **rest)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(denoisers, family, eta):
    denoiser = denoisers[family]
    whole = draw(denoiser, SEEDS, eta, record="all")
    in_pairs = draw(denoiser, SEEDS, eta, record="all", batch_size=2)
    alone = draw(denoiser, SEEDS[1:2], eta, record="all")
    for name in ("trajectory", "predictions", "x0"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(in_pairs, name), rtol=0, atol=BATCH_TOLERANCE
        )
        np.testing.assert_allclose(
            getattr(whole, name)[:, 1:2], getattr(alone, name), rtol=0, atol=BATCH_TOLERANCE
        )
    np.testing.assert_allclose(whole.latents, in_pairs.latents, rtol=0, atol=BATCH_TOLERANCE)
    assert np.abs(whole.latents[0] - whole.latents[1]).max() > 0.1


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_trajectory_starts_at_the_noise_of_the_seed(denoisers, family):
    denoiser = denoisers[family]
    samples = draw(denoiser, SEEDS, record="latents")
    noise = [torch.randn(1, *denoiser.latent_shape, generator=torch.manual_seed(s)).numpy() for s in SEEDS]
    np.testing.assert_array_equal(samples.trajectory[0], np.concatenate(noise))
    assert samples.predictions is None and samples.x0 is None
    assert samples.timesteps.tolist() == [750, 500, 250, 0]


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_trajectory_obeys_the_ddim_formula(denoisers, family, eta):
    """The step in numpy, float64, from betas up: shares no code with the scheduler."""
    denoiser = denoisers[family]
    samples = draw(denoiser, SEEDS, eta, record="all")
    if family == "ddpm":
        betas = np.linspace(0.0001, 0.02, 1000)
    else:
        betas = np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2
    cumulative = np.cumprod(1 - betas)
    last = 1.0 if family == "ddpm" else cumulative[0]  # set_alpha_to_one
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    shape = (1, *denoiser.latent_shape)
    [torch.randn(shape, generator=g) for g in generators]  # the first draw is the start
    following = [*samples.trajectory[1:], samples.latents]
    for index, t in enumerate(samples.timesteps):
        x = samples.trajectory[index].astype(np.float64)
        eps = samples.predictions[index].astype(np.float64)
        a, a_prev = cumulative[t], cumulative[t - 250] if t >= 250 else last
        x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        if family == "ddpm":
            x0 = np.clip(x0, -1, 1)  # clip_sample
        sigma = eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        expected = np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev - sigma**2) * eps
        if eta > 0:
            fresh = np.concatenate([torch.randn(shape, generator=g).numpy() for g in generators])
            expected = expected + sigma * fresh
        # float32: alphas are products of up to 750 factors (relative error about 5e-6), and x0 divides by
        # sqrt(a), down to 0.06.
        np.testing.assert_allclose(samples.x0[index], x0, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(following[index], expected, rtol=2e-4, atol=2e-4)


def test_predictions_are_after_guidance(denoisers):
    denoiser = denoisers["class-conditional-ldm"]
    samples = draw(denoiser, SEEDS, guidance=2.0, labels=[0, 1, 2], record="all")
    x = torch.from_numpy(samples.trajectory[1])
    with torch.no_grad():
        asked = denoiser.network(x, 500, class_labels=torch.tensor([0, 1, 2])).sample
        nothing = denoiser.network(x, 500, class_labels=torch.tensor([3, 3, 3])).sample
    np.testing.assert_allclose(samples.predictions[1], 2 * asked - nothing, rtol=0, atol=BATCH_TOLERANCE)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_decoding_the_final_latents_gives_the_pictures(denoisers, family):
    samples = draw(denoisers[family], SEEDS)
    assert samples.images.shape == (3, 8, 8, 3) and samples.images.dtype == np.uint8
    np.testing.assert_array_equal(decode(denoisers[family], samples.latents), samples.images)
    # Another batch may round a value on the edge of two grey levels the other way.
    one_by_one = decode(denoisers[family], samples.latents, batch_size=1).astype(int)
    assert np.abs(one_by_one - samples.images).max() <= 1


def test_recording_does_not_change_the_pictures(denoisers):
    denoiser = denoisers["class-conditional-ldm"]
    plain, recorded = draw(denoiser, SEEDS), draw(denoiser, SEEDS, record="all")
    np.testing.assert_array_equal(plain.latents, recorded.latents)
    assert plain.trajectory is None and plain.content_hash == recorded.content_hash
    assert plain.content_hash != draw(denoiser, [1, 2, 3]).content_hash


def test_progress_counts_every_step_of_every_batch(denoisers):
    heard = []
    draw(denoisers["ldm"], SEEDS, batch_size=2, report=lambda *event: heard.append(event))
    assert [done for done, _, _ in heard] == list(range(2 * STEPS + 1))
    assert {total for _, total, _ in heard} == {2 * STEPS}


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_stopping_midway_leaves_the_model_as_it_was(denoisers, family):
    denoiser = denoisers[family]
    before = draw(denoiser, SEEDS).latents
    weights = _digest(denoiser.network)
    calls = []

    def stop_at_two(done, _total, _message):
        calls.append(done)
        if done == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled, match="stopped"):
        draw(denoiser, SEEDS, record="all", report=stop_at_two)
    assert calls == [0, 1, 2]
    hooked = [m for m in denoiser.network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooked == [] and _digest(denoiser.network) == weights
    assert "step" not in vars(denoiser.pipeline.scheduler)
    np.testing.assert_array_equal(draw(denoiser, SEEDS).latents, before)


def test_two_callers_at_the_same_moment_do_not_meet(denoisers):
    denoiser = denoisers["class-conditional-ldm"]
    expected = {eta: draw(denoiser, SEEDS, eta, record="all") for eta in (0.0, 1.0)}
    barrier = threading.Barrier(2)
    got = {}

    def work(eta):
        barrier.wait(timeout=30)
        got[eta] = draw(denoiser, SEEDS, eta, record="all")

    threads = [threading.Thread(target=work, args=(eta,)) for eta in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for eta, samples in expected.items():
        assert got[eta].trajectory.shape == samples.trajectory.shape
        np.testing.assert_allclose(got[eta].predictions, samples.predictions, rtol=0, atol=BATCH_TOLERANCE)


def test_the_global_generator_is_neither_used_nor_changed(denoisers):
    for denoiser in denoisers.values():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = draw(denoiser, SEEDS, eta=1.0).latents
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        np.testing.assert_array_equal(draw(denoiser, SEEDS, eta=1.0).latents, first)


def test_pictures_that_are_not_numbers_are_black_and_grey_ones_get_three_channels():
    got = to_uint8(np.array([[[[np.nan], [0.5], [1.0]]]], dtype=np.float32))
    assert got.tolist() == [[[[0, 0, 0], [128, 128, 128], [255, 255, 255]]]]


@pytest.mark.parametrize(
    ("family", "arguments", "text"),
    [
        ("class-conditional-ldm", {"labels": [0], "seeds": [1, 2]}, "one label per seed, 2, got 1"),
        ("class-conditional-ldm", {"labels": None, "seeds": [1]}, "one label per seed, 1, got none"),
        ("class-conditional-ldm", {"labels": [3], "seeds": [1]}, "must be in 0..2, got 3"),
        ("class-conditional-ldm", {"labels": [], "seeds": []}, "at least one seed"),
        ("class-conditional-ldm", {"labels": [0], "seeds": [-1]}, "got -1"),
        ("class-conditional-ldm", {"labels": [0], "seeds": [2**63]}, "got 9223372036854775808"),
        ("class-conditional-ldm", {"labels": [0], "seeds": [1], "batch_size": 0}, "at least 1, got 0"),
        ("class-conditional-ldm", {"labels": [0], "seeds": [1], "record": "some"}, "got 'some'"),
        ("ldm", {"labels": [0], "seeds": [1]}, "has no classes: labels must be None"),
        ("ldm", {"labels": None, "seeds": [1], "settings": SamplerSettings()}, "must be 1.0, got 3.0"),
        (
            "ldm",
            {
                "labels": None,
                "seeds": [1],
                "settings": SamplerSettings(num_inference_steps=1001, guidance_scale=1.0),
            },
            "in 1..1000, got 1001",
        ),
    ],
)
def test_impossible_requests_are_refused(denoisers, family, arguments, text):
    with pytest.raises(SettingsError, match=text):
        sample(denoisers[family], **arguments)


def test_latents_of_another_shape_are_refused(denoisers):
    with pytest.raises(ShapeError, match=r"\(4, 8, 8\).*got shape \(1, 3, 8, 8\)"):
        decode(denoisers["class-conditional-ldm"], np.zeros((1, 3, 8, 8), dtype=np.float32))


def _digest(network):
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
