"""Export: write the quantized model as small files, and look at what such a file is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import DataError
from pages import _export_view as showing
from pages._bridge import view
from pages._compare_adapters import offered_for
from pages._compare_adapters import on_open as offer_adapters
from pages._context import HEAVY, LIGHT, QUIET, Context, as_sentences
from pages._export_work import PLAN, export, open_file, read_order
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._packed_store import STORE, Shown, offer
from pages._plan_key import plan_if_any
from pages._session import workspace
from pages._text import text
from pages._work import job

SCALES = (("half precision, 16 bits", "float16"), ("single precision, 32 bits", "float32"))
STOPPED = "Stopped. What is shown is from before."


@dataclass(kw_only=True)
class Export:
    """Components of the page."""

    model: gr.Dropdown
    scales: gr.Radio
    start: gr.Button
    stop: gr.Button
    upload: gr.UploadButton
    status: gr.HTML
    archive: gr.DownloadButton
    denoiser: gr.DownloadButton
    to_compare: gr.Button
    code: gr.Code
    heading: gr.HTML
    sizes: gr.HTML
    chart: gr.HTML
    account: gr.HTML
    layers: gr.HTML
    manifest: gr.Code
    key: gr.State

    @property
    def shown(self) -> list[Any]:
        """What a packed model changes, in the order of `everything`."""
        return [
            self.status,
            self.stop,
            self.key,
            self.archive,
            self.denoiser,
            self.to_compare,
            self.code,
            self.heading,
            self.sizes,
            self.chart,
            self.account,
            self.layers,
            self.manifest,
        ]


def build(ctx: Context) -> Export:
    """Create the components of the tab."""
    gr.Markdown(text("export"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            model = gr.Dropdown(
                [("the plan", PLAN)],
                value=PLAN,
                label="What to export",
                elem_id="export-model",
                info="The plan of Bit budget, rounded; or a model fine-tuned on Distill.",
            )
            scales = gr.Radio(
                list(SCALES),
                value="float16",
                label="Scales are stored in",
                elem_id="export-scales",
                info="Half is smaller; single keeps a plan's rounding exactly as Compare draws it.",
            )
            start = gr.Button("Export", variant="primary", elem_id="export-start")
            stop = gr.Button("Stop", variant="stop", elem_id="export-stop", visible=False)
            upload = gr.UploadButton(
                "Look at a packed model (.zip, .safetensors)",
                file_types=[".zip", ".safetensors"],
                size="sm",
                elem_id="export-upload",
            )
            status = gr.HTML(elem_id="export-status")
            archive = gr.DownloadButton("Download everything (.zip)", elem_id="export-zip", visible=False)
            denoiser = gr.DownloadButton(
                "Download the denoiser alone (.safetensors)", elem_id="export-file", size="sm", visible=False
            )
            to_compare = gr.Button("Compare its pictures →", elem_id="export-compare", visible=False)
            gr.Markdown(text("export_note"), elem_classes=["mpq-note"])
        with gr.Column(scale=8, min_width=320):
            heading = gr.HTML(showing.NOTHING, elem_id="export-heading")
            sizes = gr.HTML(elem_id="export-sizes")
            chart = view(
                "plot", label="Bits of a weight, counted in three ways", elem_id="export-bits", fig=""
            )
            account = gr.HTML(elem_id="export-account")
            code = gr.Code(
                language="python",
                label="Load it in Python",
                interactive=False,
                elem_id="export-code",
                visible=False,
            )
            with gr.Accordion("Layer by layer", open=False):
                layers = gr.HTML(elem_id="export-layers")
            with gr.Accordion("The manifest", open=False):
                manifest = gr.Code(
                    language="json", interactive=False, max_lines=24, elem_id="export-manifest"
                )
    return Export(
        model=model,
        scales=scales,
        start=start,
        stop=stop,
        upload=upload,
        status=status,
        archive=archive,
        denoiser=denoiser,
        to_compare=to_compare,
        code=code,
        heading=heading,
        sizes=sizes,
        chart=chart,
        account=account,
        layers=layers,
        manifest=manifest,
        key=gr.State(None),
    )


def wire(ctx: Context, page: Export) -> None:
    """Connect the events of the tab."""
    offered = [ctx.session, ctx.plan, page.model]
    ctx.opened["export"].select(on_open, offered, page.model, **LIGHT, **QUIET)
    ctx.on_plan.append((on_open, offered, [page.model]))
    heavy: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", **HEAVY}
    exporting = page.start.click(on_export, [ctx.plan, page.model, page.scales], page.shown, **heavy)
    reading = page.upload.upload(on_upload, [page.upload, ctx.session], page.shown, **heavy)
    for work in (exporting, reading):
        work.failure(lambda: (gr.Button(visible=False), ""), None, [page.stop, page.status], **QUIET)
    page.stop.click(
        lambda: (outcome(STOPPED), gr.Button(visible=False)),
        None,
        [page.status, page.stop],
        cancels=[exporting, reading],
        **QUIET,
    )
    taken = [page.key, ctx.session, ctx.picker]
    page.to_compare.click(on_compare, taken, [ctx.tabs, ctx.picker], **LIGHT, **QUIET)


def on_open(session: str | None, plan: Any, chosen: Any) -> Any:
    """Offer the plan and the fine-tuned models of this model."""
    with as_sentences():
        solved = plan_if_any(plan)
        words = "the plan"
        if solved is not None:
            words += f": {solved.choice.settings.policy}, {solved.allocation.plan.mean_bits:.2f} bits"
        offers = [offer for offer in offered_for(session) if hasattr(offer.adapter, "losses")]
        choices = [(words, PLAN), *((offer.title, offer.key) for offer in offers)]
        known = {key for _, key in choices}
        return gr.Dropdown(choices=choices, value=chosen if chosen in known else PLAN)


def on_export(plan: Any, chosen: Any, scales: Any) -> Iterator[tuple[Any, ...]]:
    """Export, with progress."""
    with as_sentences():
        yield from _following(job(export, read_order(plan, chosen, scales)), "Exported")


def on_upload(file: str, session: str | None) -> Iterator[tuple[Any, ...]]:
    """Show what an uploaded file is made of."""
    with as_sentences():
        yield from _following(job(open_file, file, session), "Read")


def on_compare(key: Any, session: str | None, chosen: Sequence[str] | None) -> tuple[Any, Any]:
    """Choose the model that is shown on Compare, beside what is chosen there, and go there."""
    with as_sentences():
        shown = STORE.get(key) if isinstance(key, str) else None
        if shown is None or shown.mismatch:
            raise DataError("this file is not kept any more: export or upload it again")
        offer(shown, workspace(session))
        return gr.Tabs(selected="compare"), offer_adapters(session, [*(chosen or ()), shown.key])


def everything(shown: Shown, words: str) -> tuple[Any, ...]:
    """All outputs of the page."""
    archive = None if shown.archive is None else str(shown.archive)
    file = None if shown.archive is None else str(shown.packed.file)
    return (
        outcome(words, "good"),
        gr.Button(visible=False),
        shown.key,
        gr.DownloadButton(value=archive, visible=archive is not None),
        gr.DownloadButton(value=file, visible=file is not None),
        gr.Button(visible=not shown.mismatch),
        gr.Code(value=showing.loading_code(shown), visible=True),
        showing.heading(shown),
        showing.sizes(shown),
        gr.HTML(fig=showing.chart(shown)),
        showing.account(shown),
        showing.layers(shown),
        showing.manifest_text(shown),
    )


def _following(work: Any, done: str) -> Iterator[tuple[Any, ...]]:
    """The progress of a job, then everything it found."""
    for event in stream(work):
        if isinstance(event, Step):
            words = progress(event.done, event.total, event.message, event.seconds)
            yield words, gr.Button(visible=True), *(gr.skip() for _ in range(11))
        else:
            yield everything(event.value, f"{done} in {event.seconds:.1f} s.")
