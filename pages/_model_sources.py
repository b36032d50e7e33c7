"""Where models come from: looking before fetching, fetching, opening, and statistics from files alone."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpqdm_core.errors import SettingsError
from mpqdm_core.host_policy import HostPolicy, host_policy
from mpqdm_core.memory import gigabytes
from mpqdm_core.model_files import INDEX_FILE
from mpqdm_core.progress import Report
from pages._precomputed import LayerRow
from pages._warm import IMPORTING, import_all
from pages._work import bundled_names, load
from pages._workspace import WORKSPACES, Workspace

BUNDLED, FOLDER, HUB = "bundled", "folder", "hub"
KINDS = {BUNDLED: "Bundled", FOLDER: "Folder on this machine", HUB: "Hugging Face Hub"}
LOAD, LOOK_FIRST = "Load the model", "Look first, then download"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the widgets of the source picker say."""

    kind: str
    bundled: str
    folder: str
    repo: str
    revision: str

    @property
    def hub_source(self) -> str:
        """owner/name, with the revision if there is one."""
        repo, revision = (self.repo or "").strip(), (self.revision or "").strip()
        return f"{repo}@{revision}" if revision and "@" not in repo else repo


def kinds(policy: HostPolicy) -> list[tuple[str, str]]:
    """The sources this server offers, for a list of choices."""
    return [
        (title, kind)
        for kind, title in KINDS.items()
        if (kind != FOLDER or policy.local_paths) and (kind != HUB or policy.models)
    ]


def look(asked: Asked, report: Report) -> Any:
    """Look at a folder or at a model of the Hub; nothing is opened and no weights are fetched.

    Raises:
        SettingsError: this server does not allow it, or nothing was named.
        LoadError: there is no such model, or it is damaged.
        Cancelled: raised by `report`.
    """
    policy = host_policy()
    import_all()
    with IMPORTING:
        looking = importlib.import_module("mpqdm_core.looking")
    if asked.kind == HUB:
        if not asked.hub_source:
            raise SettingsError("write the name of a model of the Hub, as owner/name")
        return looking.look_at_hub(asked.hub_source, policy, report=report)
    policy.check_path()
    if not (asked.folder or "").strip():
        raise SettingsError("write the path of a diffusers folder")
    report(0, 1, "reading its index and the headers of its files")
    return looking.look_at_folder(asked.folder.strip())


def button(kind: str, looked: Any) -> tuple[str, bool]:
    """What the main button says, and whether it can be pressed."""
    if kind == BUNDLED or (kind == FOLDER and looked is None):
        return LOAD, True
    if looked is None:
        return LOOK_FIRST, False
    fetch = wanted_bytes(looked)
    first = f"Download {gigabytes(fetch)}, then " if fetch else ""
    if looked.opens:
        words = "load" if fetch else LOAD
    elif looked.has_weights:
        words = "read its statistics from the files" if fetch else "Read its statistics from the files"
    else:
        return "This model cannot be opened", False
    return first + words, True


def wanted_bytes(looked: Any) -> int:
    """Bytes to fetch for what can be done with a model: all of it, or the part that is quantized alone."""
    model = wanted_model(looked)
    if model is None:
        return 0
    hub = importlib.import_module("mpqdm_core.hub")
    return int(hub.missing_bytes(model))


def wanted_model(looked: Any) -> Any | None:
    """The files of the Hub that are fetched; None for a folder."""
    if looked.hub is None or looked.opens:
        return looked.hub
    kept = (INDEX_FILE, f"{looked.component}/")
    return replace(looked.hub, files={n: size for n, size in looked.hub.files.items() if n.startswith(kept)})


def fetch(looked: Any, report: Report) -> str:
    """Fetch what was looked at, or find it in the cache; returns its folder.

    Raises:
        LoadError: the connection broke, or a file is not what the Hub announced.
        Cancelled: raised by `report`.
    """
    hub = importlib.import_module("mpqdm_core.hub")
    return str(hub.fetch_hub_model(wanted_model(looked), report=report))


def open_source(asked: Asked, looked: Any, fetched: str, report: Report) -> Workspace:
    """Open what the widgets say: a model, or the statistics of its files where it cannot be opened.

    Raises:
        SettingsError: this server does not allow it, or nothing was named.
        LoadError: it cannot be opened, or does not fit into memory.
        Cancelled: raised by `report`.
    """
    if asked.kind == BUNDLED:
        if asked.bundled not in bundled_names():
            raise SettingsError("choose a bundled model")
        return load(asked.bundled, report)
    if asked.kind == HUB and (looked is None or not fetched):
        raise SettingsError("press Look first: it shows what would be downloaded")
    if asked.kind == FOLDER:
        host_policy().check_path()
    source = fetched if asked.kind == HUB else asked.folder or ""
    if looked is not None and not looked.opens:
        return from_files(source, looked, report)
    return load(source, report, "" if looked is None else looked.title)


def from_files(source: str, looked: Any, report: Report) -> Workspace:
    """Outlier statistics straight from the files of a network that is not opened.

    Raises:
        LoadError: there are no such weights, or they are damaged.
        Cancelled: raised by `report`.
    """
    import_all()
    from mpqdm_core.outlier_map import OutlierMap
    from mpqdm_core.stored_weights import open_stored
    from mpqdm_core.streaming import stored_outlier_stats

    stored = open_stored(Path(source))
    stats = stored_outlier_stats(stored, report)
    key = "files-" + hashlib.sha256(f"{looked.source}:{stored.nbytes}".encode()).hexdigest()[:24]
    work = Workspace(
        key=key,
        title=looked.title,
        source=source,
        layers=tuple(_row(layer) for layer in stored.layers),
        parameters=sum(layer.elements for layer in stored.layers),
        family=looked.family,
        pipeline_class=looked.pipeline_class or stored.class_name,
        parts=looked.parts,
        stored=stored,
        outliers=OutlierMap.from_stats(stats, [layer.name for layer in stored.quantizable_layers]),
    )
    WORKSPACES.put(key, work)
    return work


def _row(layer: Any) -> LayerRow:
    return LayerRow(
        name=layer.name,
        kind=layer.kind,
        out_channels=layer.out_channels,
        in_channels=layer.shape[1],
        kernel=tuple(layer.shape[2:]),
        weights_per_channel=layer.weights_per_channel,
        parameters=layer.elements,
        exempt=layer.exempt,
        reason=layer.reason,
    )
