"""Weight-only quantization of sprites-ldm by others and by this library, at equal effective bits, in one go.

    python -m pip install -r requirements-peers.txt -c constraints.txt
    python -m benchmarks.peers [--quick]

Everybody quantizes the same layers at 2, 3, 4 and 8 bits; exempt layers and activations stay in full
precision. Effective bits count scales and zero-points at 16 bits each. For each peer and width this library
takes the plan with the least predicted error at no more effective bits than that peer. Pictures are drawn
from the same seeds; PSNR is against full precision's, FID and class accuracy on the features of
sprites-encoder. `lead_db` is how far ours is ahead of the closest peer, `fid_ratio` ours over the best
peer's at the same bits. Peers that are not installed are named in the notes. `--quick` is a few pictures at
2 bits with 2 steps: it shows that everything runs, no more. Finished rows are kept in runs/peers: the command
goes on where it was killed, and measures nothing twice for the same model and versions.
"""

from __future__ import annotations

import copy
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._peers_kept import KeptRows
from benchmarks._peers_methods import PEERS, Peer
from benchmarks._peers_ours import WAYS, Ours, measure_ours
from benchmarks._peers_table import ROWS, Row, markdown, ours_at, pairs
from benchmarks._record import Figure, arguments, record
from mpqdm_core import CalibrationSettings, calibrate, load_denoiser, sample
from mpqdm_core.comparison import Comparison, compare
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.encoding import EncodedSet
from mpqdm_core.measure import RowSettings
from mpqdm_core.packing import export_packed
from mpqdm_core.packing.registration import load_network
from mpqdm_core.sampling import Samples
from mpqdm_core.zoo.encoder import load_encoder
from mpqdm_core.zoo.quality import encode_real

MODEL, SEED = "sprites-ldm", 0
FIRST_PICTURE = 5_000_000  # noise that nothing was calibrated on
WIDTHS, AHEAD = (2, 3, 4, 8), (2, 3)  # bits; those where ours shall be ahead
RUN = Path("runs/peers")
KIB = 2**10
SAME = 1e-4  # of the largest prediction: a loaded network may add in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much work it is."""

    widths: tuple[int, ...] = WIDTHS
    pictures: int = 512
    real: int = 5000
    steps: int | None = None  # None: the model's own
    calibration: int = 32
    ways: int = len(WAYS)  # to round, of which ours takes the best by prediction
    loads: int = 3
    rows: RowSettings


FULL = Scale(rows=RowSettings())
QUICK = Scale(
    widths=(2,),
    pictures=10,
    real=20,
    steps=2,
    calibration=2,
    ways=1,
    loads=1,
    rows=RowSettings(images_per_step=2, positions=4),
)


class Bench:
    """The model, full precision's pictures, and what is measured of a quantized network."""

    def __init__(self, scale: Scale) -> None:
        """Load, calibrate, and draw with full precision."""
        denoiser = load_denoiser(MODEL)
        if scale.steps is not None:
            sampler = replace(denoiser.sampler, num_inference_steps=scale.steps)
            denoiser = replace(denoiser, sampler=sampler)
        self.denoiser, self.scale = denoiser, scale
        settings = CalibrationSettings(samples=scale.calibration, seed=SEED, sampler=denoiser.sampler)
        self.ours: Ours = measure_ours(denoiser, calibrate(denoiser, settings), scale.rows, scale.ways)
        self.real: EncodedSet = encode_real(scale.real)
        self.reference, _ = self.draw(denoiser)
        layers = denoiser.quantizable_layers
        self.weights = {layer.name: layer.out_channels * layer.weights_per_channel for layer in layers}

    def draw(self, denoiser: Denoiser) -> tuple[Samples, float]:
        """The pictures, and seconds for each."""
        count = self.scale.pictures
        labels = [picture % (denoiser.num_classes or 1) for picture in range(count)]
        began = time.perf_counter()
        drawn = sample(
            denoiser, labels=labels, seeds=range(FIRST_PICTURE, FIRST_PICTURE + count), batch_size=64
        )
        return drawn, (time.perf_counter() - began) / count

    def compared(self, drawn: Samples) -> Comparison:
        """How far from full precision, and how good as a set."""
        return compare(self.reference, drawn, encoder=load_encoder(), real_features=self.real)

    def with_network(self, network: nn.Module, key: str) -> Denoiser:
        """The model with another network."""
        return self.denoiser.with_network(network.eval().requires_grad_(False), content_hash=key)

    def row(self, peer: Peer, bits: int) -> Row:
        """Measure one peer at one width."""
        network = peer.quantize(copy.deepcopy(self.denoiser.network), list(self.weights), bits)
        effective, covered = peer.effective_bits(network, self.weights, bits)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            peer.save(network, folder)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            load = lambda: peer.load(self._fresh(), folder)  # noqa: E731
            seconds, loaded = timed(load, self.scale.loads)
            check_same(network, loaded, self.denoiser)
        model = self.with_network(loaded, f"{peer.name}-{bits}")
        return self._measured(Row.empty(peer.name, bits, effective, covered, size / KIB, seconds), model)

    def our_row(self, beside: Row) -> Row:
        """Measure this library at the effective bits of a peer."""
        quantized = self.ours.best(beside.effective_bits)
        with tempfile.TemporaryDirectory() as name:
            exported = export_packed(quantized, Path(name) / "model")
            cls, place = type(self.denoiser.network), exported.file.parent
            seconds, loaded = timed(lambda: load_network(cls, place), self.scale.loads)
            size = exported.file_bytes
        effective = quantized.bit_report.effective_bits
        model = self.with_network(loaded, f"ours-{effective}")
        row = Row.empty(ours_at(beside.method), beside.bits, effective, 1.0, size / KIB, seconds)
        return self._measured(row, model)

    def _fresh(self) -> nn.Module:
        cls: Any = type(self.denoiser.network)
        network: nn.Module = cls.from_config(self.denoiser.network.config)
        return network.eval()

    def _measured(self, row: Row, model: Denoiser) -> Row:
        """The row with what its pictures say."""
        drawn, seconds = self.draw(model)
        found = self.compared(drawn)
        sets = found.distribution
        return replace(
            row,
            psnr_db=found.image_psnr_db.mean.value,
            fid=float("nan") if sets is None else sets.fid.value,
            accuracy=float("nan") if sets is None or not sets.class_accuracy else sets.class_accuracy.value,
            sample_s=seconds,
        )


def timed(work: Callable[[], nn.Module], times: int) -> tuple[float, nn.Module]:
    """Median seconds of a call, and its last result."""
    seconds: list[float] = []
    result: Any = None
    for _ in range(times):
        gc.collect()
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), result


def check_same(network: nn.Module, loaded: nn.Module, denoiser: Denoiser) -> None:
    """Make sure that a file gives back what was written: sizes of files that lose something mean nothing.

    Raises:
        RuntimeError: it does not.
    """
    noise = torch.randn(1, *denoiser.latent_shape, generator=torch.Generator().manual_seed(SEED))
    inputs = {"sample": noise, "timestep": torch.tensor(500), "class_labels": torch.tensor([0])}
    with torch.no_grad():
        wanted, got = network(**inputs).sample, loaded.eval()(**inputs).sample
    if not torch.allclose(wanted, got, atol=SAME * float(wanted.abs().max())):
        raise RuntimeError("a loaded network predicts something else than the one that was saved")


def figures_of(rows: Sequence[Row], quick: bool) -> dict[str, Figure]:
    """How far ahead ours is at each width, in the worst case over the peers."""
    figures: dict[str, Figure] = {}
    for bits in sorted({row.bits for row in rows}):
        beside = [(peer, ours) for peer, ours in pairs(rows) if peer.bits == bits]
        lead = min(ours.psnr_db - peer.psnr_db for peer, ours in beside)
        ratio = max(ours.fid / peer.fid for peer, ours in beside)
        barred = bits in AHEAD and not quick
        figures[f"lead_db_{bits}_bits"] = Figure(
            lead, "dB", bar=0.0 if barred else None, met=lead > 0 if barred else None
        )
        figures[f"fid_ratio_{bits}_bits"] = Figure(
            ratio, "x", bar=1.0 if barred else None, met=ratio < 1 if barred else None
        )
        figures[f"peers_{bits}_bits"] = Figure(float(len(beside)), "peers")
    return figures


def main() -> None:
    """Measure everybody and write the record, with one row for each method and width."""
    quick = arguments(__doc__).quick
    there = [peer for peer in PEERS if peer.there]
    missing = [peer.name for peer in PEERS if not peer.there]
    if not there:
        print("none of the peers is installed: pip install -r requirements-peers.txt -c constraints.txt")
        return
    bench = Bench(QUICK if quick else FULL)
    versions = {peer.package: version(peer.package) for peer in there}
    about = {"model": bench.denoiser.content_hash, "scale": asdict(bench.scale), "versions": versions}
    kept = KeptRows(RUN / ("quick.json" if quick else "rows.json"), about)
    rows: list[Row] = []
    for bits in bench.scale.widths:
        for peer in (peer for peer in there if bits in peer.widths):
            pair = kept.get(peer.name, bits)
            if pair is None:
                pair = [row := bench.row(peer, bits), bench.our_row(row)]
                kept.put(peer.name, bits, pair)
                print(markdown(pair).splitlines()[-1], flush=True)
            rows += pair
    notes = [f"{peer.package} {version(peer.package)}: {peer.limits}." for peer in there]
    notes += [f"Not installed: {', '.join(missing)}; see requirements-peers.txt."] if missing else []
    notes += [f"Quick run: {bench.scale.pictures} pictures, too few for FID."] if quick else []
    repeats = {f"{row.method}, {row.bits} bits, sample_s": [row.sample_s] for row in rows}
    path = record("peers", figures=figures_of(rows, quick), repeats=repeats, seed=SEED, notes=notes)
    content = json.loads(path.read_text(encoding="utf-8"))
    content[ROWS] = [row.as_dict() for row in rows]
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
