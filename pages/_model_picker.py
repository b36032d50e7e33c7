"""Choosing a model: bundled, a folder, or the Hub; one look before anything is fetched, then one button."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mpqdm_core.errors import SettingsError
from mpqdm_core.host_policy import HostPolicy, host_policy
from pages import _model_sources as sources
from pages._context import HEAVY, QUIET, Context, as_sentences
from pages._html import outcome, progress
from pages._jobs import Step, stream
from pages._model_look import look_card
from pages._model_sources import BUNDLED, FOLDER, HUB, Asked
from pages._precomputed import DEFAULT_MODEL
from pages._work import bundled_names, job

NETWORK = {
    "concurrency_id": "network",
    "concurrency_limit": 3,
}  # downloads wait for others, not for computing
LOADED = "{title} is loaded ({seconds:.1f} s)."
SEEN = "{title}: the weights of {layers} layers were read from the files ({seconds:.0f} s). Look at Outliers."


@dataclass(kw_only=True)
class Picker:
    """Components of the source picker."""

    kind: gr.Radio
    bundled: gr.Dropdown
    folder: gr.Textbox
    repo: Any  # Textbox, or Dropdown where only some models are allowed
    revision: gr.Textbox
    look: gr.Button
    card: gr.HTML
    go: gr.Button
    looked: gr.State  # ModelLook or None
    fetched: gr.State  # folder of a fetched model

    @property
    def asked(self) -> list[Any]:
        """Inputs of every handler, in the order of `Asked`."""
        return [self.kind, self.bundled, self.folder, self.repo, self.revision]


def build() -> Picker:
    """Create the components."""
    policy = _policy()
    looked, fetched = gr.State(None), gr.State("")
    kind = gr.Radio(
        sources.kinds(policy),
        value=BUNDLED,
        label="Where the model comes from",
        elem_id="source-kind",
        visible=len(sources.kinds(policy)) > 1,
    )
    names = bundled_names()
    bundled = gr.Dropdown(
        names,
        value=DEFAULT_MODEL if DEFAULT_MODEL in names else names[0],
        label="Bundled model",
        elem_id="source",
        info="Ships with the explorer, with everything measured.",
    )
    folder = gr.Textbox(
        label="Folder",
        placeholder="/path/to/a/diffusers/folder",
        elem_id="folder",
        visible=False,
        info="Written by save_pretrained, with safetensors; a file of weights alone can be looked at.",
    )
    repo, revision = _hub_fields(policy)
    look = gr.Button("Look first", elem_id="look", visible=False)
    card = gr.HTML(elem_id="look-card")
    go = gr.Button(sources.LOAD, variant="secondary", elem_id="load")
    return Picker(
        kind=kind,
        bundled=bundled,
        folder=folder,
        repo=repo,
        revision=revision,
        look=look,
        card=card,
        go=go,
        looked=looked,
        fetched=fetched,
    )


def wire(ctx: Context, page: Picker, status: gr.HTML, stop: gr.Button) -> tuple[Any, list[Any]]:
    """Connect the events; returns the one after which another model is there, and those before it."""
    found = [page.looked, page.card, page.go]
    page.kind.change(
        on_kind, page.kind, [page.bundled, page.folder, page.repo, page.revision, page.look], **QUIET
    )
    edits = [page.kind.change, page.folder.input, page.repo.input, page.revision.input]
    gr.on(edits, on_edit, page.kind, found, **QUIET)
    looking = gr.on(
        [page.look.click, page.repo.submit] if isinstance(page.repo, gr.Textbox) else [page.look.click],
        on_look,
        page.asked,
        [status, *found, stop],
        **QUIET,
        **NETWORK,
    )
    fetching = page.go.click(
        on_fetch, [page.kind, page.looked], [status, page.fetched, stop], **QUIET, **NETWORK
    )
    loading = fetching.success(
        on_load,
        [page.looked, page.fetched, *page.asked],
        [status, ctx.session, stop],
        **QUIET,
        **HEAVY,
    )
    return loading, [looking, fetching]


def on_kind(kind: str) -> tuple[Any, ...]:
    """Show the fields of one source."""
    return (
        gr.Dropdown(visible=kind == BUNDLED),
        gr.Textbox(visible=kind == FOLDER),
        gr.update(visible=kind == HUB),
        gr.Textbox(visible=kind == HUB),
        gr.Button(visible=kind != BUNDLED, variant="primary" if kind == HUB else "secondary"),
    )


def on_edit(kind: str) -> tuple[Any, ...]:
    """Forget what was seen: it belongs to another name."""
    words, ready = sources.button(kind, None)
    return None, "", gr.Button(words, interactive=ready, variant="secondary")


def on_look(*asked: Any) -> Iterator[tuple[Any, ...]]:
    """Look, with progress; nothing is opened and no weights are fetched."""
    with as_sentences():
        for event in stream(job(sources.look, Asked(**_named(asked)))):
            if isinstance(event, Step):
                yield bar(event), gr.skip(), gr.skip(), gr.skip(), gr.Button(visible=True)
            else:
                words, ready = sources.button(asked[0], event.value)
                button = gr.Button(words, interactive=ready, variant="primary" if ready else "secondary")
                yield "", event.value, look_card(event.value), button, gr.Button(visible=False)


def on_fetch(kind: str, looked: Any) -> Iterator[tuple[Any, ...]]:
    """Fetch a model of the Hub, with progress; other sources have nothing to fetch."""
    with as_sentences():
        if kind != HUB or looked is None:
            yield gr.skip(), "", gr.skip()
            return
        for event in stream(job(sources.fetch, looked)):
            if isinstance(event, Step):
                yield bar(event, " MB"), gr.skip(), gr.Button(visible=True)
            else:
                yield gr.skip(), event.value, gr.skip()


def on_load(looked: Any, fetched: str, *asked: Any) -> Iterator[tuple[Any, ...]]:
    """Open the model, or read the statistics of its files, with progress."""
    with as_sentences():
        for event in stream(job(sources.open_source, Asked(**_named(asked)), looked, fetched)):
            if isinstance(event, Step):
                yield bar(event), gr.skip(), gr.Button(visible=True)
            else:
                work = event.value
                words = LOADED if work.stored is None else SEEN
                said = words.format(title=work.title, seconds=event.seconds, layers=len(work.layers))
                yield outcome(said), work.key, gr.Button(visible=False)


def bar(step: Step, unit: str = "") -> str:
    """Progress of a job."""
    return progress(step.done, step.total, step.message, step.seconds, unit)


def _named(asked: tuple[Any, ...]) -> dict[str, str]:
    return {
        name: str(value or "")
        for name, value in zip(("kind", "bundled", "folder", "repo", "revision"), asked, strict=True)
    }


def _policy() -> HostPolicy:
    """The policy of this server; one that is written wrongly allows nothing but bundled models."""
    try:
        return host_policy()
    except SettingsError:
        return HostPolicy(local_paths=False, models=(), max_bytes=None, cache_bytes=1)


def _hub_fields(policy: HostPolicy) -> tuple[Any, gr.Textbox]:
    token = "HF_TOKEN is set here: gated models it may read can be fetched."
    info = token if os.environ.get("HF_TOKEN") else "Gated models need HF_TOKEN in the server's environment."
    fixed = [name for name in policy.models if "*" not in name]
    common = {"label": "Model of the Hub", "elem_id": "hub-model", "visible": False, "info": info}
    if len(fixed) == len(policy.models):
        repo: Any = gr.Dropdown(fixed, value=fixed[0] if fixed else None, **common)
    else:
        repo = gr.Textbox(placeholder="owner/name", **common)
    revision = gr.Textbox(
        label="Revision",
        placeholder="main",
        elem_id="hub-revision",
        visible=False,
        info="A branch, tag or commit; empty takes the newest.",
    )
    return repo, revision
