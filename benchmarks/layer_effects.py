"""What measuring each layer's effect adds to an allocation: pictures at the same bits, with and without.

    python -m benchmarks.layer_effects [--quick]

For each bundled model, at 2, 3 and 4 bits on average and 8-bit activations, the whole model's bits are
given out by sensitivity alone, by sensitivity with the measured effects of layers, and evenly. `lead_db_*` is
by how much the latents of the second are closer to full precision's than those of the first, `over_uniform_*`
than those of the third (signal to error, mean over pictures of the same noise; nothing is fine-tuned).
`mean_*` is over models and budgets, `worst_over_uniform_db` the smallest, and `s_*` how long measuring the
effects took. Calibrations and tables are those that ship. `--quick` has one model, one budget, few pictures.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from benchmarks._record import Figure, arguments, record
from mpqdm_core.allocation import AllocationSettings, allocate
from mpqdm_core.bundled import bundled_models
from mpqdm_core.calibration import Calibration
from mpqdm_core.comparison import compare
from mpqdm_core.denoiser import Denoiser
from mpqdm_core.effects import layer_effects
from mpqdm_core.error_table import ErrorTable
from mpqdm_core.loading import load_denoiser
from mpqdm_core.quant_settings import QuantSettings
from mpqdm_core.quantization import quantize
from mpqdm_core.sampling import Samples, sample
from mpqdm_core.zoo.precompute import DATA_FOLDER
from mpqdm_core.zoo.quality import ask

SETTINGS = QuantSettings(activation_bits=8)
UNIFORM = AllocationSettings(policy="uniform")
BY_EFFECT = AllocationSettings(policy="optimal", weighting="sensitivity", scope="model")
BUDGETS, QUICK_BUDGETS = (2.0, 3.0, 4.0), (3.0,)
PICTURES, QUICK_PICTURES = 64, 8
QUICK_MODEL = "sprites-ldm"
FIRST_SEED = 4_000_000  # away from calibration, training and other benchmarks
BATCH = 64


def draw(denoiser: Denoiser, count: int) -> Samples:
    """The pictures that are compared."""
    questions = ask(denoiser, count)
    return sample(
        questions.denoiser,
        labels=questions.labels,
        seeds=range(FIRST_SEED, FIRST_SEED + count),
        batch_size=BATCH,
    )


def main() -> None:
    """Measure and write the record."""
    quick = arguments(__doc__).quick
    names = [QUICK_MODEL] if quick else [card.name for card in bundled_models()]
    count, budgets = (QUICK_PICTURES, QUICK_BUDGETS) if quick else (PICTURES, BUDGETS)
    figures: dict[str, Figure] = {}
    for name in names:
        key = name.replace("-", "_")
        denoiser, folder = load_denoiser(name), DATA_FOLDER / name
        calibration = Calibration.load(folder / "calibration.safetensors")
        table = ErrorTable.load(folder / "error_table_a8.npz")
        start = time.monotonic()
        layer_effects(denoiser, calibration, SETTINGS)
        figures[f"s_{key}"] = Figure(time.monotonic() - start, "s")
        reference = draw(denoiser, count)
        for bits in budgets:
            closeness = {}
            for way, prices, policy in (
                ("sensitivity", replace(table, layer_effect=None), BY_EFFECT),
                ("effects", table, BY_EFFECT),
                ("uniform", table, UNIFORM),
            ):
                plan = allocate(prices, replace(policy, average_bits=bits)).plan
                drawn = draw(quantize(denoiser, calibration, plan, SETTINGS).denoiser, count)
                closeness[way] = compare(reference, drawn).latent_snr_db.mean.value
            for figure, other in (("lead_db", "sensitivity"), ("over_uniform_db", "uniform")):
                gain = closeness["effects"] - closeness[other]
                figures[f"{figure}_{bits:.0f}_bits_{key}"] = Figure(gain, "dB")
    repeats = {}
    for figure in ("lead_db", "over_uniform_db"):
        found = [entry.value for entry_name, entry in figures.items() if entry_name.startswith(figure)]
        repeats[figure] = found
        figures[f"mean_{figure}"] = Figure(statistics.mean(found), "dB")
    worst = min(repeats["over_uniform_db"])
    figures["worst_over_uniform_db"] = Figure(worst, "dB", bar=0.0, met=worst >= 0)
    notes = ["a quick run: one model, one budget, few pictures"] if quick else []
    record("layer_effects", figures=figures, repeats=repeats, seed=FIRST_SEED, notes=notes)


if __name__ == "__main__":
    main()
