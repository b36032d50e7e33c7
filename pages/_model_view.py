"""From a workspace to what the Model page shows."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

from PIL import Image

from mpqdm_core.errors import LoadError
from pages._bridge import dumps
from pages._figures_map import value_map
from pages._html import Card, cards, table
from pages._layers import short
from pages._precomputed import Precomputed
from pages._session import open_bundled
from pages._workspace import Workspace

MEGA = 1e6
TIMES = " \N{MULTIPLICATION SIGN} "
HEAD = ["Layer", "Kind", "Shape", "Parameters", "MACs (million)", "Kurtosis, highest", "Bits"]


def summary(work: Workspace) -> str:
    """Cards: what kind of model this is."""
    inside = [layer for layer in work.layers if layer.exempt is None]
    outside = [layer for layer in work.layers if layer.exempt is not None]
    macs = sum(layer.macs for layer in work.layers)
    names = work.layer_names()
    found = work.table(next(iter(work.measured_bits()), None))
    measured = (
        ", ".join("full precision" if bits is None else str(bits) for bits in work.measured_bits())
        or "nothing yet"
    )
    return cards(
        [
            Card(
                name="Parameters",
                value=f"{work.parameters / MEGA:.2f} M" if work.parameters else "not known",
                note="of the network that predicts the noise",
            ),
            Card(
                name="Layers in the budget",
                value=str(len(inside) or len(names)),
                note=f"{found.channels:,} output channels"
                if found is not None
                else "channels are counted when measured",
            ),
            Card(
                name="Exempt layers",
                value=str(len(outside)),
                note="stay at 8 bits or full precision; listed below",
            ),
            Card(
                name="One denoising call",
                value=f"{macs / MEGA:.0f} M MACs" if macs else "not known",
                note=f"{work.sampler.get('num_inference_steps', '?')} steps a picture",
            ),
            Card(
                name="Measured",
                value=f"{len(work.measured_bits())} tables",
                note=f"activation bits: {measured}",
            ),
            Card(
                name="In memory",
                value="yes" if work.denoiser is not None else "not yet",
                note="loaded when pictures are drawn" if work.denoiser is None else "ready to draw pictures",
            ),
        ]
    )


def overview(work: Workspace) -> str:
    """The kurtosis of every channel as the first thing one sees, or nothing before anything was measured."""
    found = work.table(next(iter(work.measured_bits()), None))
    if found is None:
        return ""
    return dumps(value_map(found.layer_names, found.layer_start, found.kurtosis, name="kurtosis"))


def first_overview(model: str) -> str:
    """The overview of a bundled model, or nothing when its results are missing or damaged."""
    try:
        return overview(open_bundled(model))
    except LoadError:
        return ""


def layer_rows(work: Workspace) -> list[list[Any]]:
    """Rows of the layer table."""
    found = work.table(next(iter(work.measured_bits()), None))
    peak = {}
    if found is not None:
        peak = {name: float(found.kurtosis[found.layer_slice(name)].max()) for name in found.layer_names}
    return [
        [
            layer.name,
            layer.kind,
            _shape(layer),
            layer.parameters,
            round(layer.macs / MEGA, 3),
            round(peak[layer.name], 2) if layer.name in peak else None,
            layer.exempt or "in the budget",
        ]
        for layer in work.layers
    ]


def exempt_table(work: Workspace) -> str:
    """The exempt layers with their shares; shares are of the listed layers' sums."""
    outside = [layer for layer in work.layers if layer.exempt is not None]
    if not work.layers:
        return "<p class='mpq-hint'>Load the model to see its layers.</p>"
    parameters = max(work.parameters, sum(layer.parameters for layer in work.layers), 1)
    macs = max(sum(layer.macs for layer in work.layers), 1)
    rows = [
        [
            short(layer.name),
            layer.exempt or "",
            f"{layer.parameters / parameters:.2%}",
            f"{layer.macs / macs:.2%}",
            layer.reason,
        ]
        for layer in outside
    ]
    rows.append(
        [
            "all exempt layers",
            "",
            f"{sum(x.parameters for x in outside) / parameters:.2%}",
            f"{sum(x.macs for x in outside) / macs:.2%}",
            "",
        ]
    )
    return table(["Layer", "Kept at", "Parameters", "MACs", "Why"], rows)


def pictures(work: Workspace) -> str:
    """Finished pictures that ship with the model, in one strip."""
    shipped = Precomputed.find(work.source)
    source = _strip(work.source) if shipped is not None else ""
    if not source:
        return ""
    return f'<img class="mpq-samples" alt="Pictures drawn by {work.title} in full precision" src="{source}">'


@lru_cache(maxsize=8)
def _strip(model: str) -> str:
    """The last column of the reference sheet as one PNG in a data address; empty when nothing was shipped."""
    shipped = Precomputed.find(model)
    samples = shipped.samples() if shipped else None
    if shipped is None or samples is None:
        return ""
    tile = int(samples["tile"])
    sheet = Image.open(io.BytesIO(shipped.picture(samples["reference"]["file"]))).convert("RGB")
    rows = sheet.height // tile
    strip = Image.new("RGB", (rows * tile, tile))
    for row in range(rows):
        strip.paste(
            sheet.crop((sheet.width - tile, row * tile, sheet.width, (row + 1) * tile)), (row * tile, 0)
        )
    return png_address(strip)


def png_address(image: Image.Image) -> str:
    """A picture as a data address; PNG, so that not one value changes."""
    memory = io.BytesIO()
    image.save(memory, format="PNG")
    return "data:image/png;base64," + base64.b64encode(memory.getvalue()).decode()


def _shape(layer: Any) -> str:
    sides = (layer.out_channels, layer.in_channels // max(layer.groups, 1), *layer.kernel)
    return TIMES.join(str(side) for side in sides)
