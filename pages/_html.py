"""Small pieces of HTML: cards of figures, shares of bit-widths, tables, progress. Every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, kw_only=True)
class Card:
    """One number with its name, and a line that says what it means."""

    name: str
    value: str
    note: str = ""
    mood: str = ""  # "good", "bad" or nothing


def cards(items: Sequence[Card]) -> str:
    """A row of cards."""
    made = "".join(
        f'<div class="mpq-card {f"is-{item.mood}" if item.mood else ""}"><small>{escape(item.name)}</small>'
        f"<b>{escape(item.value)}</b><em>{escape(item.note)}</em></div>"
        for item in items
    )
    return f'<div class="mpq-cards">{made}</div>'


def shares(share_by_bits: dict[int, float]) -> str:
    """A bar divided by bit-width, the digit written into each part, and a key with percentages."""
    used = {bits: share for bits, share in sorted(share_by_bits.items()) if share > 0}
    parts = "".join(
        f'<span class="bits-{bits}" style="flex:{max(share, 0.004):.4f}" '
        f'title="{bits} bits: {share:.1%} of the weights">'
        f"{bits if share > 0.03 else ''}</span>"
        for bits, share in used.items()
    )
    keys = "".join(
        f'<span><i class="bits-{bits}"></i>{bits} bit{"s" if bits > 1 else ""}: {share:.1%}</span>'
        for bits, share in used.items()
    )
    sentence = ", ".join(f"{share:.1%} of the weights at {bits} bits" for bits, share in used.items())
    return (
        f'<div class="mpq-shares" role="img" aria-label="{escape(sentence)}">{parts}</div>'
        f'<div class="mpq-keys" aria-hidden="true">{keys}</div>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table; the first column is the name of the row."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="mpq-table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def warning(sentence: str) -> str:
    """A sentence one should not miss; nothing for an empty one."""
    return f'<p class="mpq-warning" role="status">{escape(sentence)}</p>' if sentence else ""


def progress(done: int, total: int, message: str, seconds: float, unit: str = "") -> str:
    """A bar that says how far a job is."""
    share = min(1.0, done / total) if total else 0.0
    return (
        f'<div class="mpq-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share * 100:.0f}" aria-label="{escape(message)}">'
        f'<i style="width:{share * 100:.1f}%"></i></div>'
        f'<p class="mpq-hint">{escape(message)} · {done} of {total}{escape(unit)} · {seconds:.0f} s</p>'
    )


def outcome(sentence: str, mood: str = "") -> str:
    """How a job ended."""
    return f'<p class="mpq-hint {f"is-{mood}" if mood else ""}" role="status">{escape(sentence)}</p>'
