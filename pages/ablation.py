"""Ablation: sweeps whose every cell is kept as a run, and the runs beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.board.catalog import METRICS
from mpqdm_core.board.run import ID
from mpqdm_core.errors import MpqdmError
from pages import _ablation_earlier
from pages import _ablation_show as showing
from pages._ablation_builder import Builder
from pages._ablation_files import FORMATS, read, write
from pages._ablation_notes import Notes
from pages._ablation_store import forget, library, shared_server
from pages._ablation_sweep import board_of, on_plan, on_start
from pages._bridge import view
from pages._context import CLICK, HEAVY, LIGHT, LIVE, QUIET, Context, as_sentences
from pages._html import outcome, warning
from pages._text import text

STOPPED = "Stopped. Finished cells are kept; start again to go on."
QUALITY = [(info.title, info.name) for info in METRICS if info.quality]
COST = [(info.title, info.name) for info in METRICS if not info.quality]
NOTHING: dict[str, Any] = {"chosen": [], "shown": [], "baseline": None}
MAX_IDS = 5_000


@dataclass(kw_only=True)
class Ablation:
    """Components of the page."""

    earlier: gr.Dropdown
    builder: Builder
    estimate: gr.HTML
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    cost: gr.Dropdown
    quality: gr.Dropdown
    scatter: gr.HTML
    table: gr.HTML
    notice: gr.HTML
    notes: Notes
    matrix: gr.HTML
    layers: gr.HTML
    layers_words: gr.HTML
    choice: gr.State
    kind: gr.Dropdown
    export: gr.Button
    download: gr.DownloadButton
    add: gr.UploadButton
    delete: gr.Button

    @property
    def shown(self) -> list[Any]:
        """Everything that depends on which runs there are and which are chosen."""
        return [self.scatter, self.matrix, self.layers, self.layers_words]


def build(ctx: Context) -> Ablation:
    """Create the components of the tab."""
    gr.Markdown(text("ablation"), elem_classes=["mpq-lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            earlier = _ablation_earlier.build()
            builder = Builder.build()
            estimate = gr.HTML(elem_id="sweep-estimate")
            start = gr.Button("Compute the cells", variant="primary", elem_id="sweep-start")
            stop = gr.Button("Stop", variant="stop", elem_id="sweep-stop", visible=False)
            status = gr.HTML(elem_id="sweep-status")
            if shared_server():
                gr.Markdown(text("ablation_shared"), elem_classes=["mpq-note"])
        with gr.Column(scale=8, min_width=320):
            gr.Markdown("Quality against cost", elem_classes=["mpq-title"])
            with gr.Row():
                cost = gr.Dropdown(COST, value="effective_bits", label="Cost", elem_id="ablation-cost")
                quality = gr.Dropdown(QUALITY, value="psnr_db", label="Quality", elem_id="ablation-quality")
            scatter = view(
                "ablation-scatter",
                label="Quality of every run against its cost",
                elem_id="ablation-scatter",
                height=360,
                fig="",
            )
            gr.Markdown(text("ablation_scatter"), elem_classes=["mpq-note"])
    gr.Markdown("Runs", elem_classes=["mpq-title"])
    notice = gr.HTML(elem_id="ablation-notice")
    table = view("ablation", label="Kept runs", elem_id="ablation-runs", board="")
    gr.Markdown(text("ablation_table"), elem_classes=["mpq-note"])
    notes = Notes.build()
    kind, export, download, add, delete = _file_row()
    gr.Markdown("The same noise, run by run", elem_classes=["mpq-title"])
    matrix = view("ablation-matrix", label="Pictures of the runs", elem_id="ablation-matrix", sheets="")
    gr.Markdown("Bits of every layer, two runs", elem_classes=["mpq-title"])
    words = gr.HTML(elem_id="ablation-layers-words")
    layers = view("plot", label="Mean bits of every layer in two runs", elem_id="ablation-layers", fig="")
    return Ablation(
        earlier=earlier, builder=builder, estimate=estimate, start=start, stop=stop, status=status,
        cost=cost, quality=quality, scatter=scatter, table=table, notice=notice, notes=notes, matrix=matrix,
        layers=layers, layers_words=words,
        choice=gr.State(dict(NOTHING)), kind=kind, export=export, download=download, add=add, delete=delete,
    )  # fmt: skip


def _file_row() -> tuple[Any, ...]:
    with gr.Row(equal_height=False, elem_id="run-files"):
        kind = gr.Dropdown(
            list(FORMATS), value="html", label="Export the ticked runs, or all shown", elem_id="export-kind"
        )
        export = gr.Button("Write the file", elem_id="export", min_width=120)
        download = gr.DownloadButton("Download", elem_id="export-download", visible=False, variant="primary")
        add = gr.UploadButton("Add runs from a zip", file_types=[".zip"], elem_id="add-runs", min_width=120)
        delete = gr.Button("Delete the ticked runs", elem_id="delete-runs", min_width=120)
    return kind, export, download, add, delete


def wire(ctx: Context, page: Ablation) -> None:
    """Connect the events of the tab."""
    controls = page.builder.controls
    planned = [page.estimate, page.start]
    gr.on([control.change for control in controls], on_plan, [ctx.session, *controls], planned, **LIVE)
    opened = ctx.opened["ablation"].select(on_open, page.choice, [page.table, page.notice], **LIVE)
    opened.then(on_plan, [ctx.session, *controls], planned, **LIVE)
    ctx.on_model.append((on_plan, [ctx.session, *controls], planned))
    ctx.on_model.append((on_open, [page.choice], [page.table, page.notice]))
    page.table.rows(on_rows, page.choice, page.choice, **CLICK)
    page.table.act(on_pin, page.choice, [page.choice, page.table], **CLICK)
    drawn = [page.choice, page.cost, page.quality]
    gr.on([page.choice.change, page.cost.change, page.quality.change], on_choice, drawn, page.shown, **LIVE)
    page.notes.wire(page.choice, page.table, page.notice)
    _wire_sweep(ctx, page)
    _ablation_earlier.wire(ctx, page.earlier, page.builder)
    quick = {"api_visibility": "private", **LIGHT}
    page.export.click(on_export, [page.choice, page.kind], page.download, **quick)
    page.kind.input(lambda: gr.DownloadButton(visible=False), None, page.download, **QUIET)
    page.add.upload(on_add, [page.add, page.choice], [page.table, page.notice], **quick)
    page.delete.click(on_delete, page.choice, [page.table, page.notice], **quick)
    gr.context.Context.root_block.unload(forget)


def _wire_sweep(ctx: Context, page: Ablation) -> None:
    controls = page.builder.controls
    running = page.start.click(
        on_start,
        [ctx.session, page.choice, *controls],
        [page.status, page.start, page.stop, page.table],
        **QUIET,
        **HEAVY,
    )
    ended = [page.status, page.start, page.stop]
    again = {"inputs": [ctx.session, *controls], "outputs": [page.estimate, page.start], **LIVE}
    redraw = {"inputs": [page.choice], "outputs": [page.table, page.notice], **LIVE}
    running.failure(lambda: ("", gr.Button(visible=True), gr.Button(visible=False)), None, ended, **QUIET)
    running.then(on_open, **redraw).then(on_plan, **again)
    page.stop.click(
        lambda: (outcome(STOPPED), gr.Button(visible=True), gr.Button(visible=False)),
        None,
        ended,
        cancels=[running],
        **QUIET,
    ).then(on_open, **redraw).then(on_plan, **again)


def on_open(choice: dict[str, Any], request: gr.Request) -> tuple[Any, str]:
    """Show what is kept; what is damaged is said and left out."""
    try:
        held = library(request)
        return gr.HTML(board=board_of(held, choice)), warning(" ".join(held.store.notices))
    except MpqdmError as err:
        return gr.skip(), warning(str(err))


def on_rows(choice: dict[str, Any], event: gr.EventData) -> dict[str, Any]:
    """The table says which runs are ticked and which are shown."""
    data = event._data or {}
    ids = {name: [x for x in list(data.get(name, ()))[:MAX_IDS] if _is_id(x)] for name in ("chosen", "shown")}
    return {**choice, **ids}


def on_pin(choice: dict[str, Any], event: gr.EventData, request: gr.Request) -> tuple[dict[str, Any], Any]:
    """Pin a baseline, or take it away: every other run is then shown against it."""
    with as_sentences():
        name = (event._data or {}).get("baseline")
        pinned = {**choice, "baseline": name if _is_id(name) else None}
        return pinned, gr.HTML(board=board_of(library(request), pinned))


def on_choice(choice: dict[str, Any], cost: str, quality: str, request: gr.Request) -> tuple[Any, ...]:
    """Draw what depends on the chosen runs."""
    with as_sentences():
        held = library(request)
        columns = showing.columns(held, choice)
        ticked = [*([choice["baseline"]] if choice.get("baseline") else []), *choice.get("chosen", ())]
        figure, words = showing.layers(held, held.chosen(list(dict.fromkeys(ticked))))
        points = showing.scatter(held.runs(), cost, quality, choice.get("baseline"))
        sheets = showing.sheets(held, columns)
        return gr.HTML(fig=points), gr.HTML(sheets=sheets), gr.HTML(fig=figure), words


def on_export(choice: dict[str, Any], kind: str, request: gr.Request) -> Any:
    """Write the ticked runs, or all that are shown, as a file."""
    with as_sentences():
        held = library(request)
        runs = held.chosen(choice.get("chosen") or choice.get("shown", ()))
        path = write(held, runs, kind)
        return gr.DownloadButton(f"Download {path.rsplit('/', 1)[-1]}", value=path, visible=True)


def on_add(file: str, choice: dict[str, Any], request: gr.Request) -> tuple[Any, str]:
    """Add the runs of a zip."""
    with as_sentences():
        held = library(request)
        found = read(held.store, file)
        words = f"{len(found.added)} runs added" + (
            f", {len(found.known)} known already." if found.known else "."
        )
        return gr.HTML(board=board_of(held, choice)), outcome(words)


def on_delete(choice: dict[str, Any], request: gr.Request) -> tuple[Any, str]:
    """Delete the ticked runs that are one's own."""
    with as_sentences():
        held = library(request)
        own = [name for name in choice.get("chosen", ()) if held.is_own(name)]
        held.store.remove(own)
        words = f"{len(own)} runs deleted." if own else "Tick runs of your own first; shipped ones stay."
        return gr.HTML(board=board_of(held, choice)), outcome(words)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None
