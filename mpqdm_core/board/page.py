"""Runs as one HTML file that needs nothing else: a table, the front, and the pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from mpqdm_core.board.catalog import MetricInfo, metrics_of, setting_title, setting_words, settings_of
from mpqdm_core.board.differences import pareto_front
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.tables import number_words

TEMPLATE = "report.html"
WIDTH, HEIGHT, MARGIN = 640, 320, 56


def to_page(runs: Sequence[KeptRun], read: Callable[[str], bytes], *, title: str = "Runs") -> str:
    """One HTML file with everything about `runs` in it; `read` gives a file by its hash.

    Raises:
        StoreError: a picture is missing or damaged.
    """
    done = [run for run in runs if run.state == "done"]
    failed = [run for run in runs if run.state == "failed"]
    devices = sorted({run.device for run in done if run.device})
    return Template(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")).substitute(
        title=escape(title),
        count=f"{len(done)} runs" + (f", {len(failed)} failed" if failed else ""),
        device=escape("; ".join(devices) or "not recorded"),
        table=_table(runs),
        chart=_chart(done),
        pictures=_pictures(done, read),
        fixed=_fixed(done),
    )


def _table(runs: Sequence[KeptRun]) -> str:
    names, metrics = settings_of(runs, differing=True), metrics_of(runs)
    heads = ["Run", *map(setting_title, names), *(_head(info) for info in metrics)]
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    rows = []
    for number, run in enumerate(runs, start=1):
        cells = [f"<th scope='row'>{number}. {escape(run.title)}</th>"]
        cells += [f"<td>{escape(setting_words(name, run.settings.get(name)))}</td>" for name in names]
        if run.state == "failed":
            cells.append(f"<td class='failed' colspan='{max(1, len(metrics))}'>{escape(run.error)}</td>")
        else:
            cells += [f"<td>{escape(number_words(run.metrics.get(info.name)))}</td>" for info in metrics]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _fixed(runs: Sequence[KeptRun]) -> str:
    """Settings that are the same everywhere."""
    differing = set(settings_of(runs, differing=True))
    items = [
        f"<dt>{escape(setting_title(name))}</dt>"
        f"<dd>{escape(setting_words(name, runs[0].settings.get(name)))}</dd>"
        for name in settings_of(runs)
        if name not in differing
    ]
    return f"<dl>{''.join(items)}</dl>" if items else ""


def _chart(runs: Sequence[KeptRun]) -> str:
    """PSNR over effective bits as a drawing with the front as a line."""
    shown = [
        (place, run.metrics["effective_bits"].value, run.metrics["psnr_db"])
        for place, run in enumerate(runs, start=1)
        if "effective_bits" in run.metrics and "psnr_db" in run.metrics
    ]
    if len(shown) < 2:
        return ""
    xs = [x for _, x, _ in shown]
    ends = [end for _, _, m in shown for end in (m.value, m.low, m.high) if end is not None]
    across = _scale(min(xs), max(xs), MARGIN, WIDTH - 16)
    up = _scale(min(ends), max(ends), HEIGHT - MARGIN, 16)
    front = pareto_front([(x, metric.value) for _, x, metric in shown], higher_is_better=True)
    line = " ".join(f"{across(shown[i][1]):.1f},{up(shown[i][2].value):.1f}" for i in front)
    marks = []
    for place, x, metric in shown:
        left, top = across(x), up(metric.value)
        if metric.low is not None and metric.high is not None:
            ends_at = f'y1="{up(metric.low):.1f}" y2="{up(metric.high):.1f}"'
            marks.append(f'<line x1="{left:.1f}" x2="{left:.1f}" {ends_at}/>')
        marks.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4"/>')
        marks.append(f'<text x="{left + 6:.1f}" y="{top - 5:.1f}">{place}</text>')
    labels = (
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 8}">effective bits per weight, '
        f"{min(xs):.2f} to {max(xs):.2f}</text>"
        f'<text x="4" y="12">PSNR in dB, {min(ends):.1f} to {max(ends):.1f}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="PSNR over effective bits of every run">'
        f'<polyline points="{line}"/>{"".join(marks)}{labels}</svg>'
    )


def _pictures(runs: Sequence[KeptRun], read: Callable[[str], bytes]) -> str:
    figures, seen = [], set()
    for number, run in enumerate(runs, start=1):
        if run.pictures is None:
            continue
        reference = run.pictures.reference
        if reference is not None and reference not in seen:
            seen.add(reference)
            figures.append(_figure("full precision", read(reference)))
        figures.append(_figure(f"{number}. {run.title}", read(run.pictures.drawn)))
    return "".join(figures)


def _figure(caption: str, data: bytes) -> str:
    source = "data:image/png;base64," + b64encode(data).decode()
    words = escape(caption, quote=True)
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _head(info: MetricInfo) -> str:
    return f"{info.title}, {info.unit}" if info.unit else info.title


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From numbers to places on the drawing."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)
