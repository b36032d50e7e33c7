"""Training with the network compiled: one graph without breaks, and the same steps as without."""

from __future__ import annotations

import pytest
import torch
from tiny_quant import small_denoiser
from tiny_training import FAST, small_record, student

from mpqdm_core.errors import SettingsError
from mpqdm_core.finetune_settings import FinetuneSettings
from mpqdm_core.finetuner import Finetuner
from mpqdm_core.trainable import trained_tensors

# Of torch itself, when it traces an autograd function.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trained(compile_backend):
    settings = FinetuneSettings(**FAST, relation_weight=1.0, window=1)
    tuner = Finetuner(
        student(), small_record(), settings, teacher=small_denoiser(), compile_backend=compile_backend
    )
    losses = [tuner.step().loss for _ in range(3)]
    held_out = tuner.evaluate(small_record())
    tuner.close()
    return losses, held_out, trained_tensors(tuner.layers)


def test_steps_are_the_same_and_the_network_is_one_graph():
    graphs = []

    def counting(graph, _):
        graphs.append(graph)
        return graph.forward  # as it is

    losses, held_out, tensors = trained(counting)
    assert len(graphs) == 1  # for all timesteps
    plain_losses, plain_held_out, plain_tensors = trained(None)
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    assert held_out == pytest.approx(plain_held_out, rel=1e-3)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, plain_tensors[name], rtol=1e-2, atol=1e-4)


def test_a_backend_that_fails_says_to_train_without():
    def broken(graph, _):
        raise RuntimeError("no compiler found")

    settings = FinetuneSettings(**FAST)
    tuner = Finetuner(student(), small_record(), settings, compile_backend=broken)
    with pytest.raises(SettingsError, match=r"cannot be compiled here, train without.*no compiler found"):
        tuner.step()
    tuner.close()
