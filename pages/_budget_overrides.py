"""Locks: layers whose bits the visitor decides; they are paid from the same budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd

from mpqdm_core.errors import SettingsError
from pages._context import FOLLOWED, LIVE, Context, as_sentences
from pages._session import workspace

HEAD = ["Layer", "Weights", "Locked to"]
FREE = ""


@dataclass(kw_only=True)
class Overrides:
    """Components of the fold-out part."""

    bits: gr.Radio
    lock: gr.Button
    free: gr.Button
    clear: gr.Button
    table: gr.Dataframe

    @classmethod
    def build(cls) -> Overrides:
        """Create the components."""
        with gr.Accordion("Lock single layers", open=False, elem_id="overrides"):
            with gr.Row():
                bits = gr.Radio(
                    [str(bit) for bit in range(1, 9)],
                    value="8",
                    label="Bits for the selected layer",
                    scale=3,
                    min_width=280,
                )
                lock = gr.Button("Lock the selected layer", elem_id="lock", min_width=140)
                free = gr.Button("Free the selected layer", elem_id="free", min_width=140)
                clear = gr.Button("Free all", elem_id="free-all", min_width=100)
            table = gr.Dataframe(
                headers=HEAD,
                datatype=["str", "number", "str"],
                interactive=True,
                static_columns=[0, 1],
                show_search="search",
                max_height=280,
                row_count=1,
                column_count=3,
                elem_id="lock-table",
                pinned_columns=1,
                label="Write 1 to 8 into the last column, or empty it",
                buttons=[],
            )
        return cls(bits=bits, lock=lock, free=free, clear=clear, table=table)

    def wire(self, ctx: Context, solve: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Change the locks, then solve again."""
        held = [ctx.session, ctx.locks, ctx.selection]
        for event in (
            self.lock.click(on_lock, [*held, self.bits], [ctx.locks, self.table], **FOLLOWED),
            self.free.click(on_free, held, [ctx.locks, self.table], **FOLLOWED),
            self.clear.click(on_clear, held[:1], [ctx.locks, self.table], **FOLLOWED),
            self.table.input(on_edit, [ctx.session, ctx.locks, self.table], [ctx.locks], **FOLLOWED),
        ):
            event.then(solve, inputs, outputs, **LIVE)
        ctx.on_model.append((lock_table, [ctx.session, ctx.locks], [self.table]))


def on_lock(
    session: str, locks: Mapping[str, int], selection: tuple[str | None, Any], bits: str
) -> tuple[Any, ...]:
    """Lock the selected layer."""
    layer = selection[0]
    if not layer:
        raise gr.Error("Select a layer first: click a row of the map.", print_exception=False)
    changed = {**locks, layer: int(bits)}
    return changed, lock_table(session, changed)


def on_free(session: str, locks: Mapping[str, int], selection: tuple[str | None, Any]) -> tuple[Any, ...]:
    """Free the selected layer."""
    changed = {layer: bits for layer, bits in locks.items() if layer != selection[0]}
    return changed, lock_table(session, changed)


def on_clear(session: str) -> tuple[Any, ...]:
    """Free every layer."""
    return {}, lock_table(session, {})


def on_edit(session: str, locks: Mapping[str, int], rows: pd.DataFrame) -> dict[str, int]:
    """Read the table, by layer name: the visitor may have sorted or filtered it."""
    with as_sentences():
        shown = {
            str(name): str(cell).strip() for name, cell in zip(rows.iloc[:, 0], rows.iloc[:, 2], strict=True)
        }
        kept = {layer: bits for layer, bits in locks.items() if layer not in shown}
        return kept | {
            name: _bits(name, cell) for name, cell in shown.items() if cell not in ("", "nan", "None")
        }


def lock_table(session: str | None, locks: Mapping[str, int]) -> list[list[Any]]:
    """Rows of the table: every layer that shares the budget."""
    table = workspace(session).table(next(iter(workspace(session).measured_bits()), None))
    if table is None:
        return []
    sizes = (table.layer_start[1:] - table.layer_start[:-1]) * table.weights_per_channel
    return [
        [name, int(size), str(locks.get(name, FREE))]
        for name, size in zip(table.layer_names, sizes, strict=True)
    ]


def _bits(layer: str, cell: str) -> int:
    try:
        bits = float(cell)
    except ValueError:
        bits = 0.0
    if bits not in range(1, 9):
        raise SettingsError(f"{layer} can be locked to a whole number of bits from 1 to 8, got {cell!r}")
    return int(bits)
