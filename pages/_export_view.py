"""What the Export page says of a packed model: its bits, what its file is made of, and its manifest."""

from __future__ import annotations

import json
from html import escape

from pages._bridge import dumps
from pages._export_figure import COLOURS, bits_figure
from pages._html import Card, cards, outcome, table, warning
from pages._layers import short
from pages._packed_store import Shown
from pages._size import MIB

KIB = 2**10
SINGLE = 4  # bytes of a weight in full precision
HEADER = "header and manifest"
NOTHING = outcome("Export a model, or upload one, to see what its file is made of.")
ABOUT = {
    "quantized weights": "codes of the levels, packed without gaps",
    "weight scales": "one for each output channel",
    "weight zero-points": "where the grid has them",
    "bits of each channel": "which channel has how many bits",
    "pre-scale factors": "one for each input channel",
    "activation ranges by timestep": "scale and zero-point of each layer's input",
    "exempt layers": "outside the budget, their tables included",
    "biases, norms, embeddings": "stored as they were",
    HEADER: "names, plan, settings, origin",
}


def heading(shown: Shown) -> str:
    """What the figures below belong to, and whether the open model can use it."""
    manifest = shown.packed.manifest
    made = manifest.recipe.get("made", "of unknown origin") if isinstance(manifest.recipe, dict) else ""
    inputs = manifest.settings.activation_bits
    licence = f", licence of the source model: {manifest.licence}" if manifest.licence else ""
    said = (
        f"{shown.name}: {manifest.name} ({manifest.family}), {made}, activations at "
        f"{f'{inputs} bits' if inputs else 'full precision'}{licence}."
    )
    if shown.mismatch:
        return outcome(said) + warning(f"It does not belong to the open model: {shown.mismatch}.")
    match = "" if shown.archive else " It was made from the model that is open here; every tensor is whole."
    return outcome(said + match, "good" if match else "")


def sizes(shown: Shown) -> str:
    """Cards: nominal, effective and on-disk bits, and the sizes of the files."""
    packed, report = shown.packed, shown.packed.manifest.bit_report
    full = packed.weights * SINGLE
    layers = sum(item.bytes for item in packed.items if item.of_quantized_layers)
    found = [
        Card(name="Nominal bits", value=f"{report.nominal_bits:.3f}", note="of the codes alone, a weight"),
        Card(
            name="Effective bits",
            value=f"{report.effective_bits:.3f}",
            note="counted from the plan, with scales, maps and temporal tables",
        ),
        Card(
            name="On-disk bits",
            value=f"{packed.bits_on_disk:.3f}",
            note=f"read from this file; {packed.bits_per_weight:.3f} without header and manifest",
        ),
        Card(
            name="Quantized layers",
            value=_size(layers),
            note=f"{full / layers:.1f} times smaller than in float32, {_size(full)}",
            mood="good",
        ),
        Card(name="Denoiser's file", value=_size(packed.file_bytes), note="everything of the network"),
    ]
    if shown.archive is not None:
        others = "with decoder and schedule, in full precision"
        found.append(Card(name="Zip file", value=_size(shown.archive.stat().st_size), note=others))
    return cards(found)


def chart(shown: Shown) -> str:
    """Nominal, effective and on-disk bits, each divided into what it is made of."""
    packed, report = shown.packed, shown.packed.manifest.bit_report
    effective = {item.name: item.bits / packed.weights for item in report.items if item.of_quantized_layers}
    disk = {item.name: 8 * item.bytes / packed.weights for item in packed.items if item.of_quantized_layers}
    header = next(item.bytes for item in packed.items if item.name == HEADER)
    bars = [
        ("nominal", {"quantized weights": report.nominal_bits}),
        ("effective", effective),
        ("on disk", disk | {HEADER: 8 * header / packed.weights}),
    ]
    return dumps(bits_figure(bars))


def account(shown: Shown) -> str:
    """Every byte of the denoiser's file, after the keys of the chart above it."""
    packed = shown.packed
    rows = [
        [
            f"{item.name}: {ABOUT.get(item.name, '')}",
            f"{item.bytes / KIB:,.1f}",
            f"{item.bytes / packed.file_bytes:.1%}",
            f"{8 * item.bytes / packed.weights:.3f}" if item.of_quantized_layers else "",
        ]
        for item in packed.items
    ]
    rows.append(["the file", f"{packed.file_bytes / KIB:,.1f}", "100.0%", ""])
    known = {item.name for item in packed.items if item.bytes}
    keys = "".join(
        f'<span><i style="background:{colour}"></i>{escape(part)}</span>'
        for part, colour in COLOURS.items()
        if part in known
    )
    told = f'<div class="mpq-keys" aria-hidden="true">{keys}</div>'
    return told + table(["In the denoiser's file", "KiB", "Share", "Bits a weight"], rows)


def layers(shown: Shown) -> str:
    """Bits and bytes of every layer."""
    rows = []
    for layer in shown.packed.layers:
        channels = sum(layer.bits.values())
        mean = sum(bits * count for bits, count in layer.bits.items()) / channels if channels else 32
        widths = ", ".join(f"{count} at {bits}" for bits, count in layer.bits.items())
        rows.append(
            [
                short(layer.name),
                widths or "full precision",
                f"{mean:.2f}",
                f"{layer.activation_bits} bits" if layer.activation_bits else "full precision",
                f"{layer.bytes / KIB:,.1f}",
                f"{layer.bytes_full_precision / max(layer.bytes, 1):.1f} times",
            ]
        )
    return table(["Layer", "Channels at bits", "Mean bits", "Inputs", "KiB", "Smaller by"], rows)


def manifest_text(shown: Shown) -> str:
    """The manifest without what the tables show already."""
    entries = dict(shown.packed.manifest.as_dict())
    entries["layers"] = f"{len(entries['layers'])} layers, listed on this page"
    entries.pop("bit_report")
    return json.dumps(entries, indent=1)


def loading_code(shown: Shown) -> str:
    """The lines that load it."""
    name = shown.name.removesuffix(".zip")
    labels = "labels=[0, 1], " if shown.packed.manifest.num_classes else ""
    if not shown.network:
        return (
            "from mpqdm_core import load_packed, sample\n\n"
            f'model = load_packed("{name}")  # the unzipped folder\n'
            f"pictures = sample(model.denoiser, {labels}seeds=[1, 2]).images\n"
        )
    return (
        "import mpqdm_core.packing  # from now on diffusers reads the format\n"
        f"from diffusers import {shown.network}\n"
        f'network = {shown.network}.from_pretrained("{name}", subfolder="{shown.part}")\n'
        "# or the whole pipeline, with its plan, ready for sample(model.denoiser, ...):\n"
        f'model = mpqdm_core.load_packed("{name}")\n'
    )


def _size(count: float) -> str:
    return f"{count / MIB:.2f} MiB" if count >= MIB else f"{count / KIB:.1f} KiB"
