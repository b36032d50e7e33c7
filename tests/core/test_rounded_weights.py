"""Compiled rounding of weights against `fake_quantize`, channel by channel, which shares no code with it."""

from __future__ import annotations

import pytest
import torch

from mpqdm_core.affine import QParams, fake_quantize
from mpqdm_core.weights import WeightParams, fit_weight, round_weight

BITS = torch.tensor([1, 2, 3, 4, 8, 1])
MID_RISE = torch.tensor([True, False, True, False, False, False])


@pytest.mark.parametrize("shape", [(6, 40), (6, 3, 3, 3)])
def test_every_channel_is_rounded_on_its_own_grid(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, requires_grad=True)
    affine = fit_weight(weight, BITS, grid="affine", exponent=2.0)
    mid_rise = fit_weight(weight, BITS, grid="mid-rise", exponent=2.0)
    scale = torch.where(MID_RISE, mid_rise.scale, affine.scale).requires_grad_(True)
    zero_point = torch.where(MID_RISE, mid_rise.zero_point, affine.zero_point).requires_grad_(True)
    params = WeightParams(scale=scale, zero_point=zero_point, bits=BITS, mid_rise=MID_RISE)

    result = round_weight(weight, params)
    assert "_Compiled" in result.grad_fn.name()
    pull = torch.randn(shape)
    result.backward(pull)

    for channel, bits in enumerate(BITS):
        row = weight[channel].detach().requires_grad_(True)
        q = QParams(
            scale=scale[channel].detach().requires_grad_(True),
            zero_point=zero_point[channel].detach().requires_grad_(True),
            bits=bits,
            grid="mid-rise" if MID_RISE[channel] else "affine",
        )
        expected = fake_quantize(row, q)
        expected.backward(pull[channel])
        assert torch.equal(result[channel], expected)
        assert torch.equal(weight.grad[channel], row.grad)
        torch.testing.assert_close(scale.grad[channel], q.scale.grad)
        wanted = torch.tensor(0.0) if MID_RISE[channel] else q.zero_point.grad
        torch.testing.assert_close(zero_point.grad[channel], wanted)


def test_without_gradients_or_in_another_type_operators_serve():
    weight = torch.randn(6, 5)
    params = fit_weight(weight, BITS, grid="affine", exponent=2.0)
    by_operators = round_weight(weight, params)
    assert by_operators.grad_fn is None
    compiled = round_weight(weight.clone().requires_grad_(True), params)
    assert torch.equal(by_operators, compiled)
    exact = round_weight(weight.double().requires_grad_(True), params)
    assert "_Compiled" not in exact.grad_fn.name()


def test_a_broken_value_stays_visible():
    weight = torch.tensor([[float("nan"), 0.2, -0.2]], requires_grad=True)
    params = WeightParams(
        scale=torch.tensor([0.2]),
        zero_point=torch.tensor([1.0]),
        bits=torch.tensor([2]),
        mid_rise=torch.tensor([False]),
    )
    result = round_weight(weight, params)
    assert result.isnan().tolist() == [[True, False, False]]
