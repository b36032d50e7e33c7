"""Runs as CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from mpqdm_core.board.catalog import MetricInfo, metrics_of, setting_title, setting_words, settings_of
from mpqdm_core.board.run import KeptRun, Metric, Scalar

MANY = 10_000  # counts from here up, as of bytes, keep every figure
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a text that begins so
ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def to_csv(runs: Sequence[KeptRun]) -> str:
    """One row a run: settings, then every metric with the ends of its interval and its n."""
    names, metrics = settings_of(runs), metrics_of(runs)
    heads = ["id", "title", "state", "error", "note", "created", "device", *names]
    for info in metrics:
        heads += [info.name, f"{info.name}_low", f"{info.name}_high", f"{info.name}_n"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    for run in runs:
        row: list[Scalar] = [run.id, run.title, run.state, run.error, run.note, run.created, run.device]
        row += [run.settings.get(name) for name in names]
        for info in metrics:
            metric = run.metrics.get(info.name)
            row += [None] * 4 if metric is None else [metric.value, metric.low, metric.high, metric.n]
        writer.writerow([_safe(value) for value in row])
    return buffer.getvalue()


def to_json(runs: Sequence[KeptRun]) -> str:
    """Every run as its document, without its files."""
    return json.dumps([run.as_dict() for run in runs], indent=1, allow_nan=False, ensure_ascii=False)


def to_latex(runs: Sequence[KeptRun]) -> str:
    """A booktabs table: the settings that differ, then metrics with their intervals."""
    kept = [run for run in runs if run.state == "done"]
    names = settings_of(kept, differing=True) or ("policy",)
    metrics = [info for info in metrics_of(kept) if not info.minor]
    heads = [setting_title(name) for name in names] + [_head(info) for info in metrics]
    lines = [
        r"% needs \usepackage{booktabs}; intervals are 95 % bootstrap intervals over pictures",
        rf"\begin{{tabular}}{{{'l' * len(names)}{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(map(latex, heads)) + r" \\",
        r"\midrule",
    ]
    for run in kept:
        cells = [latex(setting_words(name, run.settings.get(name))) for name in names]
        cells += [_latex_metric(run.metrics.get(info.name)) for info in metrics]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex(text: str) -> str:
    """A text with everything that LaTeX would take for a command escaped."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def number_words(metric: Metric | None) -> str:
    """A metric as tables show it: value [low, high]."""
    if metric is None:
        return ""
    if metric.low is None or metric.high is None:
        count = metric.value.is_integer() and abs(metric.value) >= MANY
        return f"{metric.value:,.0f}" if count else f"{metric.value:.4g}"
    return f"{metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}]"


def _latex_metric(metric: Metric | None) -> str:
    if metric is None:
        return "--"
    if metric.low is None or metric.high is None:
        return f"${metric.value:.4g}$"
    return f"${metric.value:.4g}$ {{\\scriptsize$[{metric.low:.4g}, {metric.high:.4g}]$}}"


def _head(info: MetricInfo) -> str:
    return f"{info.title} ({info.unit})" if info.unit else info.title


def _safe(value: Scalar) -> Scalar:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value
