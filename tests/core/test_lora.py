import pytest
import torch

from mpqdm_core.errors import SettingsError
from mpqdm_core.lora import LowRank


def filled(shape, rank, conv_factors="shared"):
    low_rank = LowRank(torch.Size(shape), rank, conv_factors)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in low_rank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return low_rank


def test_starts_at_no_correction():
    assert not LowRank(torch.Size((6, 4)), 2).delta().any()


def test_linear_delta_is_the_product_of_its_factors():
    low_rank = filled((6, 4), 2)
    a, b = low_rank.a[0], low_rank.b[0]
    expected = torch.zeros(6, 4)
    for o in range(6):
        for i in range(4):
            expected[o, i] = sum(b[o, r] * a[r, i] for r in range(2))
    torch.testing.assert_close(low_rank.delta(), expected)


def test_shared_factors_of_a_convolution_are_a_kernel_and_a_pointwise_convolution():
    low_rank = filled((6, 4, 3, 3), 2)
    x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    inner = torch.nn.functional.conv2d(x, low_rank.a[0].reshape(2, 4, 3, 3), padding=1)
    expected = torch.nn.functional.conv2d(inner, low_rank.b[0].reshape(6, 2, 1, 1))
    got = torch.nn.functional.conv2d(x, low_rank.delta(), padding=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_per_tap_factors_belong_to_one_tap_each():
    low_rank = filled((6, 4, 3, 3), 2, "per-tap")
    delta = low_rank.delta()
    for tap in range(9):
        torch.testing.assert_close(delta[:, :, tap // 3, tap % 3], low_rank.b[tap] @ low_rank.a[tap])


@pytest.mark.parametrize("conv_factors", ["shared", "per-tap"])
def test_rank_is_capped_and_then_any_weight_can_be_reached(conv_factors):
    target = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    low_rank = LowRank(target.shape, 99, conv_factors)
    low_rank.fit_(target)
    assert low_rank.rank == (6 if conv_factors == "shared" else 4)
    torch.testing.assert_close(low_rank.delta(), target, rtol=1e-4, atol=1e-5)


def test_fit_is_the_best_of_its_rank():
    target = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    low_rank = LowRank(target.shape, 2)
    low_rank.fit_(target)
    left = torch.linalg.svdvals(target)[2:].square().sum()  # Eckart-Young
    assert (target - low_rank.delta()).square().sum().item() == pytest.approx(left.item(), rel=1e-4)


def test_bad_settings_get_a_sentence():
    with pytest.raises(SettingsError, match="rank must be at least 1"):
        LowRank(torch.Size((2, 2)), 0)
    with pytest.raises(SettingsError, match="conv_factors one of shared, per-tap"):
        LowRank(torch.Size((2, 2)), 1, "diagonal")
