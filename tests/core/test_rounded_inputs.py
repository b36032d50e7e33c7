"""Compiled rounding of inputs against torch's operators, which share no code with it."""

from __future__ import annotations

import pytest
import torch

from mpqdm_core.rounded_inputs import rounded_input

IMAGE, SEQUENCE, VECTOR = (4, 6, 5, 3), (4, 7, 6), (4, 6)
LAYOUTS = {
    "image": lambda: torch.randn(IMAGE),
    "image, channels innermost": lambda: torch.randn(IMAGE).to(memory_format=torch.channels_last),
    "square sequence": lambda: torch.randn(4, 6, 6),  # as many places as channels
    "sequence": lambda: torch.randn(SEQUENCE),
    "sequence, places innermost": lambda: torch.randn(4, 6, 7).transpose(1, 2),
    "vector": lambda: torch.randn(VECTOR),
    "grid of vectors": lambda: torch.randn(4, 3, 2, 6),
}


def by_operators(x, scale, zero_point, multiplier, levels):
    """Values as torch computes them, and derivatives by scale and by zero-point of every value."""
    ratio = x * multiplier
    level = ratio.round()
    edge = torch.minimum(torch.maximum(level, -zero_point), levels - zero_point)
    inside = level == edge
    return edge * scale, inside, torch.where(inside, level - ratio, edge), torch.where(inside, 0.0, -scale)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_agrees_with_operators(layout, channels, samples):
    torch.manual_seed(0)
    x = LAYOUTS[layout]().mul(2).requires_grad_(True)
    many = (samples, *[1] * (x.ndim - 1)) if samples > 1 else ()
    scale = (0.1 + torch.rand(many)).requires_grad_(True)
    zero_point = torch.randint(0, 8, many).float().requires_grad_(True)
    prescale = 0.5 + torch.rand(channels)
    placed = prescale[:, None, None] if layout.startswith("image") else prescale
    multiplier = placed / scale.detach()

    result = rounded_input(x, scale, zero_point, multiplier, 7)
    assert "_Compiled" in result.grad_fn.name()
    value, inside, by_scale, by_zero_point = by_operators(x, scale, zero_point, multiplier, 7)
    assert torch.equal(result, value)

    pull = torch.randn(x.shape)
    result.backward(pull)
    assert torch.equal(x.grad, pull * inside * (multiplier * scale))
    torch.testing.assert_close(scale.grad, (pull * by_scale).sum_to_size(many))
    torch.testing.assert_close(zero_point.grad, (pull * by_zero_point).sum_to_size(many))


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.randn(2, 3).double(), "another type"),
        (torch.randn(4, 6)[:, ::2], "gaps in memory"),
        (torch.randn(2, 5, 4, 3).permute(0, 2, 3, 1), "channels last of an unknown order"),
        (torch.empty(0, 3), "nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_compiled_is_computed_all_the_same(x, why):
    scale = torch.tensor(0.5, dtype=x.dtype, requires_grad=True)
    zero_point = torch.tensor(1.0, dtype=x.dtype)
    multiplier = torch.arange(1, x.shape[-1] + 1).to(x.dtype)
    result = rounded_input(x, scale, zero_point, multiplier, 3)
    assert "_Operators" in result.grad_fn.name(), why
    assert torch.equal(result, torch.clamp((x * multiplier).round(), -1, 2) * 0.5)


def test_a_broken_value_stays_visible():
    x = torch.tensor([[0.3, float("nan"), float("inf"), -float("inf")]], requires_grad=True)
    scale, zero_point = torch.tensor(0.5, requires_grad=True), torch.tensor(1.0)
    result = rounded_input(x, scale, zero_point, torch.tensor([2.0]), 3)
    assert "_Compiled" in result.grad_fn.name()
    assert torch.equal(result.nan_to_num(nan=9.0), torch.tensor([[0.5, 9.0, 1.0, -0.5]]))


def test_gradients_that_nobody_asked_for_are_not_given():
    x = torch.randn(2, 3)
    scale = torch.tensor(0.5, requires_grad=True)
    rounded_input(x, scale, torch.tensor(1.0), torch.tensor([2.0]), 3).sum().backward()
    assert x.grad is None and scale.grad is not None
