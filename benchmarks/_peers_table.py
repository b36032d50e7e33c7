"""The rows of the peers benchmark, and their table in README.md between its own markers.

python -m benchmarks._peers_table
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
ROWS = "rows"


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


def markdown(rows: Sequence[Row]) -> str:
    """A table with a line for each method and width."""
    lines = [
        "| bits | method | effective bits | PSNR, dB | FID | accuracy | file, KiB | load, s | s a picture |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        left_out = "" if row.covered == 1 else f" ({row.covered:.0%} of the weights)"
        lines.append(
            f"| {row.bits} | {row.method}{left_out} | {row.effective_bits:.2f} | {row.psnr_db:.1f} "
            f"| {row.fid:.3g} | {row.accuracy:.3f} | {row.file_kib:.0f} | {row.load_s:.2f} "
            f"| {row.sample_s:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Rewrite what stands between the markers of README.md, if both are there."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = markdown([Row(**row) for row in content[ROWS]])
    notes = "\n".join(f"- {note}" for note in content["notes"])
    path = ROOT / "README.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{notes}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
