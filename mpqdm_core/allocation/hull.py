"""What each further bit brings, on the lower convex hull of every channel's error curve."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray


def convex_gains(curve: NDArray[np.float32], widths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Error saved per bit on each step of the lower convex hull.

    Args:
        curve: (A, C) float32, finite error of each channel at each of A widths.
        widths: (A,) rising bit-widths.

    Returns:
        (A - 1, C) float32, never rising along the first axis. Neighbouring steps of one channel with the very
        same gain belong together: the width between them lies above the hull and is not worth stopping at.

    Source:
        Greatest convex minorant by the min-max formula; what pool-adjacent-violators computes.
    """
    gaps = np.diff(widths).astype(np.float32)[:, None]
    gains = (curve[:-1] - curve[1:]) / gaps  # (A - 1, C)
    crooked = np.zeros(curve.shape[1], dtype=np.bool_)
    for earlier, later in itertools.pairwise(gains):
        crooked |= later > earlier
    columns = np.flatnonzero(crooked)
    if columns.size == curve.shape[1]:
        return _minorant(curve, widths)
    if columns.size:
        gains[:, columns] = _minorant(np.ascontiguousarray(curve[:, columns]), widths)
    return gains


def _minorant(curve: NDArray[np.float32], widths: NDArray[np.int64]) -> NDArray[np.float32]:
    steps = len(widths) - 1
    gains = np.full((steps, curve.shape[1]), np.inf, dtype=np.float32)
    for i in range(steps):
        steepest = np.full(curve.shape[1], -np.inf, dtype=np.float32)
        for k in range(steps, i, -1):  # chords from width i to width k; step k - 1 is the last they cover
            chord = (curve[i] - curve[k]) / np.float32(widths[k] - widths[i])
            np.maximum(steepest, chord, out=steepest)
            np.minimum(gains[k - 1], steepest, out=gains[k - 1])
    return gains
