"""Choosing fine-tuned models to compare: runs of this server, and adapter files of a visitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pages._context import LIGHT, QUIET, Context, as_sentences
from pages._distill_adapters import ADAPTERS, Offered
from pages._html import outcome
from pages._session import workspace

MAX_TITLE = 60


@dataclass(kw_only=True)
class AdapterPicker:
    """Components of the choice."""

    chosen: gr.Dropdown
    upload: gr.UploadButton

    @classmethod
    def build(cls) -> AdapterPicker:
        """Create them."""
        return cls(
            chosen=gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                label="Fine-tuned and packed models",
                elem_id="adapters",
                info="Runs of Distill and files from Export; drawn beside the plan.",
            ),
            upload=gr.UploadButton(
                "Add an adapter file", file_types=[".safetensors"], size="sm", elem_id="add-adapter"
            ),
        )

    def wire(self, ctx: Context, status: gr.HTML) -> None:
        """Keep the list up to date."""
        inputs = [ctx.session, self.chosen]
        ctx.opened["compare"].select(on_open, inputs, self.chosen, **LIGHT, **QUIET)
        ctx.on_model.append((on_open, inputs, [self.chosen]))
        self.upload.upload(
            on_upload, [self.upload, *inputs], [self.chosen, status], api_visibility="private", **LIGHT
        )


def on_open(session: str | None, chosen: Sequence[str] | None) -> Any:
    """Offer the adapters of this model, and keep what is chosen of them."""
    offers = offered_for(session)
    known = {offer.key for offer in offers}
    kept = [key for key in chosen or () if key in known]
    return gr.Dropdown(choices=[(offer.title, offer.key) for offer in offers], value=kept, multiselect=True)


def on_upload(file: str, session: str | None, chosen: Sequence[str] | None) -> tuple[Any, str]:
    """Take an adapter file and choose it."""
    with as_sentences():
        from mpqdm_core.adapter import Adapter

        adapter = Adapter.load(file)
        key = adapter.content_hash[:6]
        name = Path(file).stem[:MAX_TITLE]
        title = f"{name}, {adapter.steps} steps, {adapter.plan.mean_bits:.2f} bits"
        work_key = workspace(session).key
        ADAPTERS.put(key, Offered(key=key, title=title, work_key=work_key, changed={}, adapter=adapter))
        return on_open(session, [*(chosen or ()), key]), outcome(
            f"Added {name}: draw the pictures to see it."
        )


def offered_for(session: str | None) -> list[Offered]:
    """Adapters of a visitor's model, the latest first."""
    key = workspace(session).key
    return [offer for offer in reversed(ADAPTERS.values()) if offer.work_key == key]


def chosen_of(keys: Sequence[str] | None) -> tuple[Offered, ...]:
    """The adapters that were chosen and are still there."""
    return tuple(offer for key in keys or () if (offer := ADAPTERS.get(key)) is not None)
