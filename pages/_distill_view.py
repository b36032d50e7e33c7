"""From a run to what the Distill page shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from mpqdm_core.runs import Run, RunRegistry, RunState, trailing_mean
from pages._bridge import dumps
from pages._budget_solve import Solved
from pages._distill_settings import CUSTOM, PRESETS, TIMED_MODEL, Order
from pages._distill_work import PREVIEW_SEEDS
from pages._figures_distill import loss_figure
from pages._html import Card, cards, outcome, progress, table, warning
from pages._layers import short
from pages._model_view import png_address
from pages._size import MIB

MOST_CLIPPED = 5  # layers the doctor lists
LITTLE_TO_WIN = 4.0  # weight bits
NO_DIAGNOSIS = outcome("The doctor looks at gradients, scales and clipping while a run is on its way.")
TERMS = {"task": "task", "relation": "relation", "feature": "features"}


def intention(solved: Solved | None) -> str:
    """What a run would do, in one sentence."""
    if solved is None:
        return warning("There is no plan yet: choose one on Bit budget.")
    plan, bits = solved.allocation.plan, solved.choice.activation_bits
    inputs = "full-precision activations" if bits is None else f"{bits}-bit activations"
    said = (
        f"The model of your bit budget ({plan.mean_bits:.2f} weight bits, {solved.choice.settings.policy}, "
        f"{inputs}) is trained to predict what full precision predicts, and its pictures are held against "
        f"full precision's. What is trained: low-rank corrections of the weights of {len(plan.layer_names)} "
        "layers, the scales of their levels, and the ranges of their inputs at every timestep. "
        "It runs on this machine's CPU."
    )
    easy = plan.mean_bits >= LITTLE_TO_WIN and (bits is None or bits > LITTLE_TO_WIN)
    hint = (
        " At this budget little is lost, so there is little to win: try 2 or 3 weight bits." if easy else ""
    )
    return f'<p class="mpq-hint">{escape(said)}<b>{escape(hint)}</b></p>'


def duration(order: Order, preset: str, seconds: float | None) -> str:
    """How long it will take, and how one knows."""
    settings = order.settings
    work = f"{settings.steps} steps with {settings.batch_size} pictures and {settings.window} timesteps each"
    if seconds is not None:
        return outcome(f"{_rounded(seconds)} on this machine's CPU, by its last steps: {work}.")
    timed = (
        "" if preset == CUSTOM else f"{PRESETS[preset].seconds} s with {TIMED_MODEL} on two free CPU cores"
    )
    known = f"about {timed}: " if timed else ""
    return outcome(f"Not timed on this machine yet; {known}{work}.")


def refused(sentence: str) -> str:
    """Why these settings cannot be trained."""
    return warning(sentence)


def status(run: Run | None, registry: RunRegistry) -> str:
    """Where the run is."""
    if run is None:
        return ""
    if run.stopping:
        return outcome("Stopping after this step; the adapter is being kept …")
    if run.state is RunState.QUEUED:
        ahead = registry.position(run)
        runs = "one run comes" if ahead == 1 else f"{ahead} runs come"
        return outcome(f"Waiting in line: {runs} first." if ahead else "Starting …")
    if run.state is RunState.RUNNING:
        return progress(run.done, run.total, run.message or "starting", run.seconds)
    return {
        RunState.FAILED: warning(run.error),
        RunState.FINISHED: outcome(f"Finished: {run.title}, in {run.seconds:.0f} s.", "good"),
    }.get(run.state) or _stopped(run)


def losses(run: Run) -> str:
    """The loss curve."""
    records = list(run.steps)
    if not records:
        return ""
    values = [record.loss for record in records]
    return dumps(
        loss_figure(run.id, [record.step for record in records], values, trailing_mean(values, _pass(run)))
    )


def previews(run: Run) -> str:
    """What assets/js/training.js shows; empty before there is a picture."""
    if run.reference is None:
        return ""
    moments = [
        {"step": preview.step, "src": _sheet(preview.images), "psnr": preview.psnr_db}
        for preview in run.previews
    ]
    return dumps({"run": run.id, "names": run.names, "reference": _sheet(run.reference), "moments": moments})


def doctor(run: Run | None) -> str:
    """What looks wrong, and the numbers behind it."""
    if run is None or not run.diagnoses:
        return NO_DIAGNOSIS
    last = run.diagnoses[-1]
    said = "".join(warning(flag) for flag in last.flags) or outcome("Nothing looks wrong.", "good")
    total = sum(last.term_gradients.values()) or 1.0
    terms = [
        [TERMS.get(term, term), f"{norm:.3g}", f"{norm / total:.0%}"]
        for term, norm in last.term_gradients.items()
    ]
    return (
        said
        + f'<p class="mpq-hint">Seen before step {last.step + 1}.</p>'
        + table(["Loss", "Gradient norm", "Share"], terms)
        + table(["Layer", "Inputs clipped", "Weight scale, of its start", "Gradient norm"], _layers(last))
    )


def result(run: Run | None) -> str:
    """What came out, in figures and in words."""
    if run is None or run.adapter is None:
        return ""
    adapter = run.adapter
    found = [*_psnr_cards(run), _loss_card(adapter.losses), _size_card(run)]
    return cards([card for card in found if card]) + f'<p class="mpq-hint">{escape(_words(run))}</p>'


def _psnr_cards(run: Run) -> list[Card]:
    shown = [preview for preview in run.previews if preview.psnr_db is not None]
    if len(shown) < 2:
        return []
    first, last = shown[0], shown[-1]
    gain = (last.psnr_db or 0.0) - (first.psnr_db or 0.0)
    return [
        Card(
            name="Pictures to full precision",
            value=f"{first.psnr_db:.1f} → {last.psnr_db:.1f} dB",
            note=f"PSNR of {len(PREVIEW_SEEDS)} previews, {gain:+.1f} dB at step {last.step}",
            mood="good" if gain > 0 else "bad",
        )
    ]


def _loss_card(measured: Mapping[str, float]) -> Card | None:
    before, after = measured.get("task before"), measured.get("task after")
    if before is None or after is None or not before:
        return None
    return Card(
        name="Task loss, pictures not trained on",
        value=f"{after / before - 1.0:+.0%}",
        note=f"{before:.3g} before, {after:.3g} after",
        mood="good" if after < before else "bad",
    )


def _size_card(run: Run) -> Card | None:
    if run.adapter is None or run.adapter_file is None or not run.adapter_file.exists():
        return None
    numbers = sum(int(tensor.numel()) for tensor in run.adapter.tensors.values())
    return Card(
        name="Adapter",
        value=f"{run.adapter_file.stat().st_size / MIB:.2f} MiB",
        note=f"{numbers:,} numbers, merged into the weights before they are rounded",
    )


def _words(run: Run) -> str:
    """Losses before, after, and with whole zero-points."""
    measured: Mapping[str, float] = run.adapter.losses if run.adapter else {}
    said = []
    for term, name in TERMS.items():
        values = [measured.get(f"{term} {when}") for when in ("before", "after", "merged")]
        if all(value is not None for value in values):
            before, after, merged = (f"{value:.4g}" for value in values)
            said.append(
                f"The {name} loss on held-out pictures was {before} before and {after} after training; "
                f"with corrections merged and zero-points rounded it is {merged}."
            )
    return " ".join(said)


def _layers(diagnosis: Any) -> list[list[str]]:
    clipped = diagnosis.clipped_inputs
    names = sorted(diagnosis.scale_ratio, key=lambda name: -clipped.get(name, 0.0))[:MOST_CLIPPED]
    return [
        [
            short(name),
            f"{clipped[name]:.1%}" if name in clipped else "not rounded",
            f"{diagnosis.scale_ratio[name]:.3f}",
            f"{diagnosis.layer_gradients.get(name, 0.0):.3g}",
        ]
        for name in names
    ]


def _pass(run: Run) -> int:
    """Steps in which every timestep is looked at once, as far as the run has shown."""
    window = max(len(record.timesteps) for record in run.steps)
    seen = len({timestep for record in run.steps for timestep in record.timesteps})
    return -(-seen // window)


def _stopped(run: Run) -> str:
    if run.adapter is None:
        return outcome("Stopped before training began. Resume starts where it was.")
    return outcome(
        f"Stopped after step {run.adapter.steps} of {run.total}: the adapter so far can be used, "
        "and Resume goes on from here."
    )


def _sheet(images: np.ndarray) -> str:
    """(N, H, W, 3) side by side, as an address."""
    count, height, width, depth = images.shape
    return png_address(Image.fromarray(images.transpose(1, 0, 2, 3).reshape(height, count * width, depth)))


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"About {max(5, round(seconds / 5) * 5)} s"
    minutes = seconds / 60
    return f"About {minutes:.1f} min" if minutes < 10 else f"About {minutes:.0f} min"
