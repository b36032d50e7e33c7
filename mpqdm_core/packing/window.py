"""How a layer walks over its input."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]  # (height, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The walk of a convolution in one group with zero padding; a linear layer sees single positions."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def positions(self, height: int, width: int) -> Pair:
        """Height and width of the output, by the input's."""
        rows, columns = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns
