"""The long jobs of the page as plain functions; each takes a Report and may be stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.progress import Report
from pages._open_models import open_models
from pages._precomputed import LayerRow, Precomputed
from pages._session import open_bundled
from pages._text import ASSETS
from pages._unfinished import Unfinished
from pages._warm import import_all
from pages._workspace import WORKSPACES, Workspace

QUANT_FIELDS = ("grid", "range_exponent", "prescale_alpha", "exempt_bits")
FULL = 100  # parts of one phase


def bundled_names() -> list[str]:
    """Models in assets/models, found without importing torch; with shipped results alone is enough too."""
    weights = {index.parent.name for index in (ASSETS / "models").glob("*/model_index.json")}
    return sorted(weights) or ["sprites-ldm"]


def phase(report: Report, index: int, count: int, title: str) -> Report:
    """A report for part `index` of `count` that moves the whole bar along."""

    def inner(done: int, total: int, message: str) -> None:
        share = FULL * done // max(total, 1)
        report(index * FULL + share, count * FULL, f"{title}: {message}" if message else title)

    return inner


def load(source: str, report: Report, title: str = "") -> Workspace:
    """Load a model; a bundled one keeps its shipped results.

    Args:
        source: a bundled name, or a folder that this visitor may open.
        report: may raise `Cancelled`.
        title: how the page calls it; empty takes the folder's name.

    Raises:
        LoadError: it cannot be loaded, or does not fit into memory.
        SettingsError: nothing was named.
    """
    import_all()
    name = source.strip()
    if not name:
        raise SettingsError("choose a bundled model, or write the path of a diffusers folder")
    report(0, 2, f"loading {title or Path(name).name}")
    denoiser = open_models().get(name)
    report(1, 2, "listing layers")
    if Precomputed.find(name):
        work = open_bundled(name)
    else:
        work = WORKSPACES.get_or_make(denoiser.content_hash, lambda: _fresh(denoiser, title))
    with work.lock:
        work.denoiser = denoiser
        _describe(work, denoiser)
    return work


def ensure_denoiser(work: Workspace, report: Report) -> Any:
    """The loaded model, loading it now if need be."""
    if work.stored is not None:
        raise LoadError(
            f"of {work.title} only the files were looked at: for pictures and measurements, load it on the "
            "Model page on a machine with enough memory"
        )
    if work.denoiser is None:
        load(work.source, report, work.title)
    if work.denoiser is None:
        raise LoadError(f"{work.title} could not be loaded")
    return work.denoiser


def ensure_calibration(work: Workspace, report: Report, samples: int = 32) -> Any:
    """The calibration, from the shipped file or made now."""
    from mpqdm_core.calibration import Calibration, CalibrationSettings, calibrate

    denoiser = ensure_denoiser(work, report)
    if work.calibration is None and work.precomputed is not None:
        file = work.precomputed.folder / "calibration.safetensors"
        work.calibration = Calibration.load(file) if file.is_file() else None
    if work.calibration is None:
        made = calibrate(denoiser, CalibrationSettings(samples=samples), report)
        work.calibration = made
    return work.calibration


def measure(work: Workspace, activation_bits: int | None, samples: int, report: Report) -> Workspace:
    """Calibrate, look at outliers, measure sensitivity, effects and the error table at these activation bits.

    Nothing of the workspace changes before everything is measured; what was stopped is gone on with.

    Raises:
        Cancelled: raised by `report`.
    """
    from mpqdm_core.calibration import CalibrationSettings, calibrate, calibration_fingerprint
    from mpqdm_core.effects import affordable_effects
    from mpqdm_core.measure import measure_error_table
    from mpqdm_core.outlier_map import OutlierMap
    from mpqdm_core.outliers import outlier_stats
    from mpqdm_core.quant_settings import QuantSettings
    from mpqdm_core.sensitivity import channel_sensitivity

    denoiser = ensure_denoiser(work, phase(report, 0, 6, "loading"))
    wanted = CalibrationSettings(samples=samples)
    unfinished = Unfinished(f"{activation_bits}-{calibration_fingerprint(denoiser, wanted)}")
    calibration = unfinished.calibrated(
        partial(calibrate, denoiser, wanted, phase(report, 1, 6, "calibrating"))
    )
    settings = QuantSettings(activation_bits=activation_bits)
    stats = outlier_stats(denoiser, calibration, settings.prescale_alpha, phase(report, 2, 6, "outliers"))
    sensitivity = channel_sensitivity(denoiser, calibration, report=phase(report, 3, 6, "sensitivity"))
    effects = affordable_effects(denoiser, calibration, settings, phase(report, 4, 6, "effects of layers"))
    table = unfinished.measured(
        partial(
            measure_error_table, denoiser, calibration, settings, phase(report, 5, 6, "error table"),
            sensitivity=sensitivity, effects=effects,
        )
    )  # fmt: skip
    with work.lock:
        work.calibration = calibration
        work.outliers = OutlierMap.from_stats(stats, table.layer_names)
        work.tables, work.extra = {activation_bits: table}, {}
        work.precomputed = None  # its other tables belong to another calibration
    return work


def quant_settings(table: Any, activation_bits: int | None) -> Any:
    """The settings of a table: a plan is carried out with the quantizers it was priced with."""
    from mpqdm_core.quant_settings import QuantSettings

    known = {name: table.settings[name] for name in QUANT_FIELDS if name in table.settings}
    grid = known.get("grid")
    if isinstance(grid, str) and ":" in grid:
        known["grid"] = {int(pair.split(":")[0]): pair.split(":")[1] for pair in grid.split(",")}
    return QuantSettings(activation_bits=activation_bits, **known)


def job(function: Callable[..., Any], *arguments: Any) -> Callable[[Report], Any]:
    """`function` with everything but its report, once all imports are done.

    Two threads that import parts of the same library at the same moment may each find the other's half made.
    """

    def work(report: Report) -> Any:
        import_all()
        return function(*arguments, report)

    return work


def _fresh(denoiser: Any, title: str) -> Workspace:
    return Workspace(key=denoiser.content_hash, title=title or denoiser.name, source=denoiser.source)


def _describe(work: Workspace, denoiser: Any) -> None:
    from mpqdm_core.families import FAMILIES
    from mpqdm_core.loading import resolve_source
    from mpqdm_core.model_parts import describe_folder

    found = describe_folder(resolve_source(denoiser.source))
    family = FAMILIES[denoiser.family]
    work.family = family.title
    work.pipeline_class, work.parts = found.pipeline_class, found.parts
    work.layers = tuple(LayerRow.read(layer) for layer in denoiser.layers)
    work.class_names = tuple(denoiser.class_names)
    work.schedulers, work.prompted = family.schedulers, family.prompted
    work.parameters = int(denoiser.parameters)
    sampler = denoiser.sampler
    work.sampler = {
        "num_inference_steps": sampler.num_inference_steps,
        "guidance_scale": sampler.guidance_scale,
        "eta": sampler.eta,
    }
