"""The colours of bit-widths are told apart by lightness alone, whatever the eye sees of their hue."""

import re
from pathlib import Path

import numpy as np
import pytest

STYLE = Path(__file__).parents[2] / "assets" / "css" / "explorer.css"
# Machado, Oliveira, Fernandes 2009, severity 1: linear RGB as seen without one kind of cone.
EYES = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def colours():
    """(8, 3) linear RGB of 1 to 8 bits."""
    found = dict(re.findall(r"--mpq-bits-(\d): #([0-9a-f]{6})", STYLE.read_text(encoding="utf-8")))
    srgb = np.array([[int(found[str(bits)][k : k + 2], 16) for k in (0, 2, 4)] for bits in range(1, 9)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("eye", EYES)
def test_more_bits_are_lighter_whatever_the_eye_sees(eye):
    seen = np.clip(colours() @ np.array(EYES[eye]).T, 0, 1)
    luminance = seen @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16  # CIE L*: about one step is just visible
    assert (np.diff(lightness) > 4).all()
