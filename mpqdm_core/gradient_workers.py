"""Data-parallel gradients on the cores of one machine: for networks too small for threads in operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class GradientWorkers:
    """One single-threaded worker per core, each with its own share of the batch.

    Small convolutions gain little from threads inside one operator, and wait for each other at every one of
    hundreds of operators a step; whole shares of the batch meet once a step.
    """

    def __init__(self, count: int) -> None:
        """Start the workers."""
        self.count = count
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, parameters: Sequence[Tensor], losses: Sequence[Callable[[], Tensor]]) -> list[float]:
        """Set every parameter's gradient to the mean over `losses` of its gradient; return the losses.

        Args:
            parameters: leaves that ask for gradients; one that no loss reaches gets None.
            losses: each builds and returns one scalar; their order decides rounding, the count of workers
                does not.
        """

        def gradients(loss_of: Callable[[], Tensor]) -> tuple[float, tuple[Tensor | None, ...]]:
            with torch.enable_grad():
                loss = loss_of()
                return loss.item(), torch.autograd.grad(loss, parameters, allow_unused=True)

        results = list(self._pool.map(gradients, losses))
        for index, parameter in enumerate(parameters):
            present = [share for _, shares in results if (share := shares[index]) is not None]
            parameter.grad = sum(present[1:], present[0]) / len(losses) if present else None
        return [loss for loss, _ in results]

    def forward(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """What each call returns, computed without gradients."""

        def quietly(call: Callable[[], Result]) -> Result:
            with torch.no_grad():
                return call()

        return list(self._pool.map(quietly, calls))

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=True)
