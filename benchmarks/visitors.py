"""Thirty visitors at once on one server: they open the page, look around, drag the budget slider and compare.

    python -m benchmarks.visitors [--quick] [--minutes 15] [--visitors 30]

Each visitor is a client that speaks the page's own protocol over HTTP: it fetches the page, moves the slider
a few times with pauses as a person makes them, changes the statistic of the outlier map, and sometimes draws
a pair of pictures of the bundled model. `allocate_p95_ms` is from a moved slider to the end of its answer,
after a warm-up; `errors` counts answers that are not a success; `memory_growth` is the server's resident
memory at the end over that after a third of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from benchmarks._record import Figure, record
from benchmarks.startup import ROOT, free_port, wait_for_server

P95_BAR_MS, GROWTH_BAR = 300.0, 1.1
PATIENCE_S = 120.0
DRAGS, PAUSE_S = 8, (0.5, 2.5)
SLIDER_STEP = 0.05
DRAW_SHARE = 0.1  # of the visits
WARM_UP = 0.1  # share of the time whose answers are not counted
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of the page: its number, and what its inputs are before anybody touched them."""

    number: int
    trigger: int
    queued: bool  # else it is answered directly, without a place in the queue
    inputs: tuple[str, ...]  # elem_id of each input, or "" for one without
    values: tuple[Any, ...]

    def body(self, session: str, **changed: Any) -> dict[str, Any]:
        """What the browser sends; `changed` by elem_id with "_" for "-"."""
        new = {name.replace("_", "-"): value for name, value in changed.items()}
        data = [new.get(name, value) for name, value in zip(self.inputs, self.values, strict=True)]
        return {
            "data": data,
            "fn_index": self.number,
            "trigger_id": self.trigger,
            "session_hash": session,
            "event_data": None,
        }


@dataclass(kw_only=True)
class Tally:
    """What all visitors saw."""

    allocate_ms: list[float] = field(default_factory=list)
    others: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    visits: int = 0


def find_event(config: Mapping[str, Any], name: str, kind: str) -> Event:
    """The event of the component with this elem_id.

    Raises:
        LookupError: the page has none.
    """
    components = {entry["id"]: entry["props"] for entry in config["components"]}
    for entry in config["dependencies"]:
        for target, event in entry["targets"]:
            if event == kind and components.get(target, {}).get("elem_id") == name:
                return Event(
                    number=entry["id"],
                    trigger=target,
                    queued=entry["queue"] is not False,
                    inputs=tuple(components[i].get("elem_id") or "" for i in entry["inputs"]),
                    values=tuple(components[i].get("value") for i in entry["inputs"]),
                )
    raise LookupError(f"the page has no event {kind} of {name}")


class Visitor:
    """One person with a browser tab."""

    def __init__(self, address: str, config: Mapping[str, Any], tally: Tally, number: int) -> None:
        """Sit down; `number` decides what this one does."""
        self._client = httpx.Client(base_url=address, timeout=PATIENCE_S)
        self._tally, self._chance = tally, random.Random(SEED + number)
        self._slider = find_event(config, "weight-bits", "input")
        self._link = find_event(config, "weight-bits", "change")  # the address bar follows
        self._statistic = find_event(config, "statistic", "input")
        self._draw = find_event(config, "draw", "click")

    def visit(self, end: float, counted_from: float) -> None:
        """Come again and again until `end`; times before `counted_from` are not kept."""
        while time.monotonic() < end:
            session = uuid.uuid4().hex[:10]
            self._open(counted_from)
            for _ in range(DRAGS):
                if time.monotonic() >= end:
                    break
                time.sleep(self._chance.uniform(*PAUSE_S))
                bits = round(self._chance.uniform(1.5, 6.0) / SLIDER_STEP) * SLIDER_STEP
                began = time.monotonic()
                if self._ask(self._slider, session, weight_bits=bits) and began > counted_from:
                    self._tally.allocate_ms.append((time.monotonic() - began) * 1e3)
                self._timed("link", counted_from, self._link, session, weight_bits=bits)
            chosen = self._chance.choice(["kurtosis", "crest", "range_ratio"])
            self._timed("outliers", counted_from, self._statistic, session, statistic=chosen)
            if self._chance.random() < DRAW_SHARE:
                self._timed("draw", counted_from, self._draw, session, count=1)
            self._tally.visits += 1

    def _open(self, counted_from: float) -> None:
        began = time.monotonic()
        try:
            self._client.get("/").raise_for_status()
        except httpx.HTTPError as error:
            self._tally.errors.append(f"open: {error!r}")
        self._keep("open", began, counted_from)

    def _timed(self, name: str, counted_from: float, event: Event, session: str, **changed: Any) -> None:
        began = time.monotonic()
        self._ask(event, session, **changed)
        self._keep(name, began, counted_from)

    def _keep(self, name: str, began: float, counted_from: float) -> None:
        if began > counted_from:
            self._tally.others.setdefault(name, []).append((time.monotonic() - began) * 1e3)

    def _ask(self, event: Event, session: str, **changed: Any) -> bool:
        """Send an event and read its answers to the last; whether it was a success."""
        body = event.body(session, **changed)
        try:
            if not event.queued:
                self._client.post("/gradio_api/run/predict", json=body).raise_for_status()
                return True
            self._client.post("/gradio_api/queue/join", json=body).raise_for_status()
            stream = f"/gradio_api/queue/data?session_hash={body['session_hash']}"
            with self._client.stream("GET", stream) as answers:
                for line in answers.iter_lines():
                    if '"msg":"process_completed"' in line[:400].replace(" ", ""):
                        message = json.loads(line.removeprefix("data:"))
                        if not message["success"]:
                            self._tally.errors.append(str(message["output"])[:300])
                        return bool(message["success"])
        except httpx.HTTPError as error:
            self._tally.errors.append(f"event {body['fn_index']}: {error!r}")
            return False
        self._tally.errors.append(f"event {body['fn_index']}: no answer")
        return False


def resident_mib(process: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(float(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def crowd(address: str, server: int, visitors: int, minutes: float) -> tuple[Tally, list[float]]:
    """Let them all in; return what they saw and the server's memory every second."""
    config = httpx.get(f"{address}/config", timeout=PATIENCE_S).json()
    tally, memory = Tally(), []
    start = time.monotonic()
    end, counted_from = start + 60 * minutes, start + 60 * minutes * WARM_UP
    threads = [
        threading.Thread(target=Visitor(address, config, tally, number).visit, args=(end, counted_from))
        for number in range(visitors)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(resident_mib(server))
        time.sleep(1.0)
    return tally, memory


def figures_of(tally: Tally, memory: Sequence[float], visitors: int) -> dict[str, Figure]:
    """Figures of a crowd."""
    p95 = float(np.percentile(tally.allocate_ms, 95))
    third, last = memory[len(memory) // 3 :][:30], memory[-30:]
    growth = statistics.median(last) / statistics.median(third)
    errors = float(len(tally.errors))
    figures = {
        "visitors": Figure(float(visitors), "at once"),
        "visits": Figure(float(tally.visits), "visits"),
        "allocate_p50_ms": Figure(statistics.median(tally.allocate_ms), "ms"),
        "allocate_p95_ms": Figure(p95, "ms", bar=P95_BAR_MS, met=p95 < P95_BAR_MS),
        "errors": Figure(errors, "answers", bar=0.0, met=errors == 0),
        "memory_growth": Figure(growth, "x", bar=GROWTH_BAR, met=growth <= GROWTH_BAR),
        "memory_mib": Figure(memory[-1], "MiB"),
    }
    for name, times in tally.others.items():
        figures[f"{name}_p95_ms"] = Figure(float(np.percentile(times, 95)), "ms")
    return figures


def main() -> None:
    """Start a server, let the visitors in, and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="eight visitors for a third of a minute")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--visitors", type=int, default=30)
    asked = parser.parse_args()
    visitors, minutes = (8, 1 / 3) if asked.quick else (asked.visitors, asked.minutes)
    port = free_port()
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_server(address)
            tally, memory = crowd(address, server.pid, visitors, minutes)
        finally:
            server.terminate()
    record(
        "visitors",
        figures=figures_of(tally, memory, visitors),
        repeats={
            "allocate_ms": tally.allocate_ms[-2000:],
            "memory_mib": memory[:: max(1, len(memory) // 300)],
        },
        seed=SEED,
        notes=[f"{minutes:g} minutes", *sorted(set(tally.errors))[:10]],
    )


if __name__ == "__main__":
    main()
