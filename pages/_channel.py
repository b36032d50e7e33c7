"""One output channel under the magnifying glass: its weights, rounded at 1 to 8 bits."""

from __future__ import annotations

import base64

import numpy as np

from mpqdm_core.errors import SettingsError
from pages._bridge import dumps
from pages._workspace import Workspace

GRID, EXPONENT = "mid-rise", 2.4  # used where an error table does not say what it was measured with
MAX_VALUES = 20_000  # more than any kernel of a bundled model has; a wider channel is shown in part


def channel_json(work: Workspace, layer: str, channel: int, bits: int, *, prescaled: bool = True) -> str:
    """What assets/js/channel.js shows.

    Args:
        work: the model.
        layer: name of a quantizable layer.
        channel: output channel.
        bits: where the slider starts.
        prescaled: look at the weight the quantizer sees instead of the weight as it is.

    Raises:
        LoadError: the weights cannot be read.
        SettingsError: there is no such layer or channel.
    """
    import torch

    from mpqdm_core.affine import quantize
    from mpqdm_core.kurtosis import channel_kurtosis
    from mpqdm_core.range_search import search_range
    from mpqdm_core.weights import prescaled_weight

    weight = torch.from_numpy(work.weight(layer))
    if not 0 <= channel < len(weight):
        raise SettingsError(f"{layer} has channels 0 to {len(weight) - 1}, got {channel}")
    seen, remark = weight, "as it is, before pre-scaling."
    if prescaled and (factors := work.prescale(layer)) is not None:
        row = next(row for row in work.layers if row.name == layer)
        seen = prescaled_weight(weight, torch.from_numpy(np.array(factors)), row.groups)
        remark = "after pre-scaling, as the quantizer sees it."
    values = seen[channel].reshape(1, -1)[:, :MAX_VALUES].float().contiguous()  # (1, K)
    settings = next(iter(work.tables.values())).settings if work.tables else {}
    grid, exponent = str(settings.get("grid", GRID)), float(settings.get("range_exponent") or EXPONENT)
    if grid not in ("affine", "mid-rise"):
        grid = GRID
    rows = values.expand(8, -1).contiguous()  # (8, K): the same channel at 1 to 8 bits
    params = search_range(rows, torch.arange(1, 9), grid=grid, exponent=exponent)  # type: ignore[arg-type]
    codes = quantize(rows, params)
    return dumps(
        {
            "layer": layer,
            "channel": int(channel),
            "bits": int(bits),
            "values": _base64(values.numpy().astype(np.float32)),
            "codes": _base64(codes.numpy().astype(np.uint8)),
            "scale": [float(value) for value in params.scale],
            "offset": [float(value) for value in params.zero_point],
            "kurtosis": float(channel_kurtosis(values)[0]),
            "remark": f"{_tail(float(channel_kurtosis(values)[0]))}; {remark} Grid: {grid}.",
        }
    )


def _tail(kurtosis: float) -> str:
    if not np.isfinite(kurtosis) or kurtosis == 0:
        return "a channel without spread"
    if kurtosis > 6:
        return "long tails, a few weights stretch the grid"
    return "like a Gaussian (3)" if kurtosis > 2 else "flatter than a Gaussian (3)"


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
