"""From a workspace to what the Model page shows."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from html import escape

from PIL import Image

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.host_policy import host_policy
from mpqdm_core.memory import gigabytes
from pages._bridge import dumps
from pages._figures_map import value_map
from pages._html import Card, cards, table
from pages._layers import short
from pages._model_look import count, parts_table
from pages._model_tree import tree as tree
from pages._open_models import listed
from pages._precomputed import Precomputed
from pages._session import open_bundled
from pages._workspace import Workspace

MEGA, GIGA = 1e6, 1e9


def summary(work: Workspace) -> str:
    """Cards: what kind of model this is."""
    inside = [layer for layer in work.layers if layer.exempt is None]
    outside = [layer for layer in work.layers if layer.exempt is not None]
    macs = sum(layer.macs for layer in work.layers)
    found = work.table(next(iter(work.measured_bits()), None))
    channels = sum(layer.out_channels for layer in inside)
    parameters, macs_outside = _shares(work)
    return cards(
        [
            Card(
                name="Parameters",
                value=count(work.parameters) if work.parameters else "not known",
                note="of the network that predicts the noise",
            ),
            Card(
                name="Layers in the budget",
                value=str(len(inside) or len(work.layer_names())),
                note=f"{channels or getattr(found, 'channels', 0):,} output channels",
            ),
            Card(
                name="Exempt layers",
                value=str(len(outside)),
                note=f"{parameters:.1%} of the parameters"
                + (f", {macs_outside:.1%} of the MACs" if macs else ""),
            ),
            Card(
                name="One denoising call",
                value=_macs(macs) if macs else "not known",
                note=f"{work.sampler.get('num_inference_steps', '?')} steps a picture"
                if work.stored is None
                else "counted when the model is loaded",
            ),
            Card(name="Measured", **_measured(work)),
            Card(name="In memory", **_memory(work)),
        ]
    )


def parts(work: Workspace) -> str:
    """What kind of model this is, how it is drawn, and its components with their sizes."""
    schedule = next((part.class_name for part in work.parts if part.name == "scheduler"), "")
    known = [("Kind", work.family), ("Pipeline", work.pipeline_class), ("Scheduler", schedule)]
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in known if value)
    if not rows and not work.parts:
        return "<p class='mpq-hint'>Load the model to see its components.</p>"
    return f'<div class="mpq-made"><dl>{rows}</dl>{parts_table(work.parts)}</div>'


def shelf() -> str:
    """What is in memory, for assets/js/layers.js."""
    models = listed()
    limit = _limit()
    return dumps(
        {
            "models": [{"key": m.key, "title": m.title, "size": gigabytes(m.nbytes)} for m in models],
            "used": gigabytes(sum(m.nbytes for m in models)) if models else "nothing",
            "limit": gigabytes(limit) if limit else "",
            "share": min(1.0, sum(m.nbytes for m in models) / limit) if limit else 0.0,
        }
    )


def overview(work: Workspace) -> str:
    """The kurtosis of every channel as the first thing one sees, or nothing before anything was measured."""
    found = work.table(next(iter(work.measured_bits()), None))
    if found is not None:
        return dumps(value_map(found.layer_names, found.layer_start, found.kurtosis, name="kurtosis"))
    stats = work.outlier_stats()
    if stats is None:
        return ""
    return dumps(value_map(stats.layer_names, stats.layer_start, stats.weights["kurtosis"], name="kurtosis"))


def first_overview(model: str) -> str:
    """The overview of a bundled model, or nothing when its results are missing or damaged."""
    try:
        return overview(open_bundled(model))
    except LoadError:
        return ""


def exempt_table(work: Workspace) -> str:
    """The exempt layers with their shares; shares are of the listed layers' sums."""
    outside = [layer for layer in work.layers if layer.exempt is not None]
    if not work.layers:
        return "<p class='mpq-hint'>Load the model to see its layers.</p>"
    parameters = max(work.parameters, sum(layer.parameters for layer in work.layers), 1)
    macs = sum(layer.macs for layer in work.layers)
    all_parameters, all_macs = _shares(work)
    rows = [
        [
            short(layer.name),
            layer.exempt or "",
            f"{layer.parameters / parameters:.2%}",
            f"{layer.macs / macs:.2%}" if macs else "not known",
            layer.reason,
        ]
        for layer in outside
    ]
    known = f"{all_macs:.2%}" if macs else "not known"
    rows.append(["all exempt layers", "", f"{all_parameters:.2%}", known, ""])
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


def _macs(count: int) -> str:
    """Multiply-accumulates without decimals, which no one asks for."""
    return f"{count / GIGA:.1f} G MACs" if count >= GIGA else f"{count / MEGA:.0f} M MACs"


def _shares(work: Workspace) -> tuple[float, float]:
    """Shares of parameters and MACs that are exempt, of the listed layers' sums."""
    outside = [layer for layer in work.layers if layer.exempt is not None]
    parameters = max(work.parameters, sum(layer.parameters for layer in work.layers), 1)
    macs = max(sum(layer.macs for layer in work.layers), 1)
    return sum(x.parameters for x in outside) / parameters, sum(x.macs for x in outside) / macs


def _measured(work: Workspace) -> dict[str, str]:
    tables = work.measured_bits()
    if tables:
        bits = ", ".join("full precision" if bits is None else str(bits) for bits in tables)
        return {"value": f"{len(tables)} tables", "note": f"activation bits: {bits}"}
    if work.stored is not None:
        return {"value": "weights", "note": "their outliers, read from the files"}
    return {"value": "nothing yet", "note": "press Measure to begin"}


def _memory(work: Workspace) -> dict[str, str]:
    if work.stored is not None:
        return {"value": "files only", "note": "nothing is loaded: no pictures can be drawn"}
    if work.denoiser is None:
        return {"value": "not yet", "note": "loaded when pictures are drawn"}
    return {"value": "yes", "note": "ready to draw pictures"}


def _limit() -> int:
    try:
        return host_policy().cache_bytes
    except SettingsError:
        return 0
