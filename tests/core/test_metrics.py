import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torchmetrics.functional.image import peak_signal_noise_ratio

from mpqdm_core.errors import DataError, SettingsError, ShapeError
from mpqdm_core.metrics import cosine, mse, psnr_db, sqnr_db, ssim


def pictures(n=3, size=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(n, size, size, channels), dtype=np.uint8)


def slow_ssim(a, b, data_range):
    """Wang et al. with a reflected border, one channel at a time, in float64."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image):
        return correlate1d(correlate1d(image, window, axis=0, mode="mirror"), window, axis=1, mode="mirror")

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    maps = []
    for channel in range(a.shape[-1]):
        x, y = a[..., channel], b[..., channel]
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        maps.append(((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(maps)


def test_hand_values():
    reference = np.array([[3.0, 4.0], [1.0, 0.0]])
    candidate = np.array([[3.0, 2.0], [0.0, 1.0]])
    assert mse(reference, candidate).tolist() == [2.0, 1.0]
    assert sqnr_db(reference, candidate)[0] == pytest.approx(10 * math.log10(25 / 4), rel=1e-12)
    assert sqnr_db(reference, candidate)[1] == pytest.approx(10 * math.log10(1 / 2), rel=1e-12)
    assert cosine(reference, candidate) == pytest.approx([17 / (5 * math.sqrt(13)), 0.0], rel=1e-12)


def test_uint8_is_read_as_zero_to_one():
    black, white = np.zeros((1, 12, 12, 3), np.uint8), np.full((1, 12, 12, 3), 255, np.uint8)
    assert mse(black, white).tolist() == [1.0]
    assert psnr_db(black, white).tolist() == [0.0]  # the largest possible error


def test_one_grey_level_off_is_48_db():  # 20 log10(255)
    grey = np.full((1, 12, 12, 3), 100, np.uint8)
    assert psnr_db(grey, grey + 1)[0] == pytest.approx(48.1308, abs=1e-4)


def test_psnr_agrees_with_torchmetrics_and_knows_the_range():
    a, b = pictures(seed=1), pictures(seed=2)
    floats = [torch.from_numpy(side).double() / 127.5 - 1.0 for side in (a, b)]
    expected = peak_signal_noise_ratio(floats[1], floats[0], data_range=2.0, reduction="none", dim=(1, 2, 3))
    np.testing.assert_allclose(psnr_db(*floats, data_range=2.0), expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(psnr_db(a, b), expected.numpy(), rtol=1e-6)  # the range cancels


def test_identical_samples():
    same = pictures()
    assert psnr_db(same, same).tolist() == [math.inf] * 3
    assert sqnr_db(same, same).tolist() == [math.inf] * 3
    assert mse(same, same).tolist() == [0.0] * 3
    np.testing.assert_allclose(ssim(same, same), 1.0, atol=1e-6)
    np.testing.assert_allclose(cosine(same, same), 1.0, rtol=1e-12)


def test_zero_samples_have_documented_results():
    zero, one = np.zeros((1, 4)), np.ones((1, 4))
    assert sqnr_db(zero, zero).tolist() == [math.inf]
    assert sqnr_db(zero, one).tolist() == [-math.inf]
    assert (cosine(zero, zero).item(), cosine(zero, one).item(), cosine(one, zero).item()) == (1.0, 0.0, 0.0)


def test_cosine_is_blind_to_scale_and_sqnr_is_not():
    x = np.random.default_rng(0).normal(size=(2, 5))
    np.testing.assert_allclose(cosine(x, 3 * x), 1.0, rtol=1e-12)
    np.testing.assert_allclose(sqnr_db(x, 3 * x), 10 * math.log10(1 / 4), rtol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_a_slow_float64_oracle(channels):
    a = pictures(size=24, channels=channels, seed=4)
    noise = np.random.default_rng(5).integers(-30, 31, size=a.shape)
    b = np.clip(a.astype(int) + noise, 0, 255).astype(np.uint8)
    expected = [slow_ssim(x / 255, y / 255, 1.0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ssim(a, b), expected, atol=2e-5)  # float32 convolutions inside


def test_ssim_layouts_and_ranges_agree():
    a, b = pictures(seed=1), pictures(seed=2)
    planes = [torch.from_numpy(side).permute(0, 3, 1, 2) for side in (a, b)]
    np.testing.assert_allclose(ssim(*planes, channels="first"), ssim(a, b), atol=1e-6)
    np.testing.assert_allclose(
        ssim(a.astype(np.float32), b.astype(np.float32), data_range=255.0), ssim(a, b), atol=1e-5
    )


def test_chunks_give_what_one_pass_gives(monkeypatch):
    a, b = pictures(n=7, seed=1), pictures(n=7, seed=2)
    whole = [metric(a, b) for metric in (mse, ssim, sqnr_db, cosine)]
    monkeypatch.setattr("mpqdm_core.metrics._CHUNK", 3)
    for metric, expected in zip((mse, ssim, sqnr_db, cosine), whole, strict=True):
        np.testing.assert_allclose(metric(a, b), expected, rtol=1e-6)


def test_half_precision_tensors_with_gradients_are_accepted():
    x = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    assert mse(x, torch.zeros(2, 3)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("metric", [mse, psnr_db, sqnr_db, cosine, ssim])
def test_inputs_that_cannot_be_compared(metric):
    with pytest.raises(ShapeError, match=r"\(3, 16, 16, 3\) and \(2, 16, 16, 3\)"):
        metric(pictures(3), pictures(2))
    with pytest.raises(DataError, match="uint8"):
        metric(pictures(), pictures() / 255.0)
    broken = pictures() / 255.0
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="candidate has NaN or infinite values, first in sample 1"):
        metric(pictures() / 255.0, broken)
    with pytest.raises(DataError, match="nothing to compare"):
        metric(pictures(0), pictures(0))


def test_one_axis_is_refused():
    with pytest.raises(ShapeError, match="at least two axes"):
        mse(np.ones(3), np.ones(3))


def test_ssim_refuses_what_it_would_get_wrong():
    with pytest.raises(DataError, match=r"\[0, 1\], found \[-1, 1\]"):
        ssim(np.full((1, 12, 12, 3), -1.0), np.full((1, 12, 12, 3), 1.0))
    with pytest.raises(ShapeError, match="at least 11 pixels"):
        ssim(pictures(size=10), pictures(size=10))
    with pytest.raises(ShapeError, match="16 channels"):
        ssim(pictures().transpose(0, 3, 1, 2), pictures().transpose(0, 3, 1, 2))
    with pytest.raises(SettingsError, match="'middle'"):
        ssim(pictures(), pictures(), channels="middle")


def test_uint8_has_one_range():
    with pytest.raises(SettingsError, match="got 255"):
        psnr_db(pictures(), pictures(), data_range=255)
    with pytest.raises(SettingsError, match="positive"):
        psnr_db(pictures() / 255, pictures() / 255, data_range=0.0)
