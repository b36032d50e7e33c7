"""The rows of the peers benchmark, and their table for README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "peers.json"
ROWS = "rows"
SHOWN = {
    "effective_bits": ".2f",
    "psnr_db": ".1f",
    "fid": ".3g",
    "accuracy": ".3f",
    "file_kib": ".0f",
    "load_s": ".2f",
    "sample_s": ".3f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method at one width."""

    method: str
    bits: int  # nominal
    effective_bits: float  # with scales and zero-points
    covered: float  # share of the weights that were quantized
    psnr_db: float  # mean, against full precision at the same seeds
    fid: float  # against full precision
    accuracy: float  # share recognised as the class asked for
    file_kib: float  # of the denoiser
    load_s: float
    sample_s: float  # for each picture

    @classmethod
    def empty(
        cls, method: str, bits: int, effective_bits: float, covered: float, file_kib: float, load_s: float
    ) -> Row:
        """A row before any picture was drawn."""
        unknown = float("nan")
        return cls(
            method=method,
            bits=bits,
            effective_bits=effective_bits,
            covered=covered,
            psnr_db=unknown,
            fid=unknown,
            accuracy=unknown,
            file_kib=file_kib,
            load_s=load_s,
            sample_s=unknown,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each peer's row and the row of this library at its bits."""
    ours = {(row.bits, row.method): row for row in rows}
    found = [(row, ours.get((row.bits, ours_at(row.method)))) for row in rows]
    return [(peer, own) for peer, own in found if own is not None]


def ours_at(method: str) -> str:
    """What this library's row beside a peer's is called."""
    return f"ours at {method}'s bits"


def markdown(rows: Sequence[Row]) -> str:
    """A table with a line for each peer and width: its figures, a slash, and ours at its effective bits."""
    lines = [
        "| bits | peer | effective bits | PSNR, dB | FID | accuracy | file, KiB | load, s | s a picture |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for peer, own in pairs(rows):
        left_out = "" if peer.covered == 1 else f" ({peer.covered:.0%} of the weights)"
        cells = [
            f"{getattr(peer, name):{form}} / {getattr(own, name):{form}}" for name, form in SHOWN.items()
        ]
        lines.append(f"| {peer.bits} | {peer.method}{left_out} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def documented() -> str:
    """The table and the notes of the results file, for README.md."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = markdown([Row(**row) for row in content[ROWS]])
    return "\n".join([table, "", *(f"- {note}" for note in content["notes"])])
