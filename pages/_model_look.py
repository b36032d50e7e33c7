"""What was seen of a model before it is fetched or opened, as HTML; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from mpqdm_core.memory import gigabytes
from pages._model_sources import wanted_bytes

MEGA, GIGA = 1e6, 1e9


def look_card(looked: Any | None) -> str:
    """Everything one wants to know before pressing the button; nothing before one has looked."""
    if looked is None:
        return ""
    facts = [("Kind", looked.family or "not one the explorer can draw with")]
    if looked.pipeline_class:
        facts.append(("Pipeline", looked.pipeline_class))
    if looked.hub is not None:
        fetch, all_bytes = wanted_bytes(looked), looked.hub.nbytes
        here = "" if fetch == all_bytes else f" (the model has {gigabytes(all_bytes)})"
        facts += [
            ("Licence", looked.licence or "its card names none"),
            ("To download", f"{gigabytes(fetch)}{here}" if fetch else "nothing: it is here already"),
            ("Commit", looked.hub.commit[:10]),
        ]
    facts.append(("Parameters", count(looked.elements)))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return (
        f'<section class="mpq-look" aria-label="What was found"><h3>{escape(looked.title)}</h3>'
        f"<dl>{rows}</dl>{parts_table(looked.parts)}{memory_bar(looked.need)}{_verdict(looked)}</section>"
    )


def parts_table(parts: Sequence[Any]) -> str:
    """The components with their sizes, the largest as wide as there is room."""
    sized = [part for part in parts if part.nbytes]
    if not sized:
        return ""
    widest = max(part.nbytes for part in sized)
    rows = "".join(
        f'<li><span class="mpq-part-name"><b>{escape(part.name)}</b> {escape(part.class_name)}</span>'
        f'<span class="mpq-part-bar" aria-hidden="true">'
        f'<i style="width:{max(100 * part.nbytes / widest, 1):.1f}%"></i></span>'
        f'<span class="mpq-part-size">{escape(_size(part))}</span></li>'
        for part in sorted(sized, key=lambda part: -part.nbytes)
    )
    return f'<ul class="mpq-parts" aria-label="Components by size">{rows}</ul>'


def memory_bar(need: Any) -> str:
    """Memory needed against memory there."""
    share = min(1.0, need.needed / max(need.available, 1))
    words = f"{gigabytes(need.needed)} of memory to open it, {gigabytes(need.available)} free here"
    return (
        f'<div class="mpq-memory {"" if need.fits else "is-bad"}"><span class="mpq-part-bar" role="img" '
        f'aria-label="{escape(words)}"><i style="width:{100 * share:.1f}%"></i></span>'
        f'<p class="mpq-hint">{escape(words)}</p></div>'
    )


def count(elements: int) -> str:
    """A number of parameters for people: 2.85 M, 860 M, 12.0 billion."""
    if elements >= GIGA:
        return f"{elements / GIGA:.2f} billion"
    return f"{elements / MEGA:.2f} M" if elements < 100 * MEGA else f"{elements / MEGA:.0f} M"


def _verdict(looked: Any) -> str:
    if looked.opens:
        return '<p class="mpq-hint is-good" role="status">It can be opened here.</p>'
    reason = looked.problem or "It does not fit into the memory of this server."
    reason = reason[:1].upper() + reason[1:].rstrip(".") + "."
    offer = " Its outlier statistics can be read from the files alone." if looked.has_weights else ""
    if offer and "from its files" in reason:
        offer = ""
    return f'<p class="mpq-warning" role="status">{escape(reason + offer)}</p>'


def _size(part: Any) -> str:
    numbers = "" if part.elements is None else f"{count(part.elements)} · "
    return f"{numbers}{gigabytes(part.nbytes)}"
