import numpy as np
import pytest
import torch

from mpqdm_core.encoding import encode
from mpqdm_core.errors import DataError, SettingsError, ShapeError


class Output:
    def __init__(self, features, spatial, logits):
        self.features, self.spatial, self.logits = features, spatial, logits


class Corners(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return Output(images[:, :, 0, 0] * self.scale, images[:, :1], images[:, :2, 0, 0])


def pictures(n=5):
    return np.random.default_rng(0).integers(0, 256, size=(n, 4, 6, 3), dtype=np.uint8)


def test_pictures_reach_the_encoder_in_minus_one_to_one():
    images = pictures()
    encoded = encode(Corners().eval(), images)
    np.testing.assert_allclose(encoded.features, images[:, 0, 0] / 127.5 - 1.0, atol=1e-6)
    np.testing.assert_allclose(encoded.spatial, images[..., 0].reshape(5, 24) / 127.5 - 1.0, atol=1e-6)
    logits = images[:, 0, 0, :2] / 127.5 - 1.0
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.probabilities, expected, rtol=1e-6)
    assert len(encoded) == 5


def test_batches_change_nothing_and_are_reported():
    encoder, heard = Corners().eval(), []
    encoded = encode(encoder, pictures(), batch_size=2, report=lambda *event: heard.append(event[:2]))
    assert encoder.batches == [2, 2, 1]
    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(encoded.features, encode(encoder, pictures()).features)


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (pictures()[0], ShapeError, r"\(4, 6, 3\)"),
        (pictures() / 255.0, DataError, "float64"),
        (pictures(0), DataError, "0 of uint8"),
    ],
)
def test_what_is_not_a_set_of_pictures(images, error, match):
    with pytest.raises(error, match=match):
        encode(Corners().eval(), images)


def test_settings():
    with pytest.raises(SettingsError, match="training mode"):
        encode(Corners().train(), pictures())
    with pytest.raises(SettingsError, match="got 0"):
        encode(Corners().eval(), pictures(), batch_size=0)
