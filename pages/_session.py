"""Finding the workspace of a visitor, and opening the bundled model from its shipped results."""

from __future__ import annotations

from mpqdm_core.errors import LoadError
from mpqdm_core.model_parts import FolderParts, describe_folder
from pages import _precomputed
from pages._precomputed import DEFAULT_MODEL, LayerRow, Precomputed
from pages._workspace import WORKSPACES, Workspace


def workspace(key: str | None) -> Workspace:
    """The visitor's workspace; one that was dropped to make room is opened again where that is possible.

    Raises:
        LoadError: the model must be loaded again by hand.
    """
    if key and (found := WORKSPACES.get(key)) is not None:
        return found
    return open_bundled(key or DEFAULT_MODEL)


def open_bundled(name: str) -> Workspace:
    """The workspace of a bundled model, from its shipped results alone, without weights or torch.

    Raises:
        LoadError: no results were shipped for this name.
    """
    return WORKSPACES.get_or_make(name, lambda: _from_files(name))


def _from_files(name: str) -> Workspace:
    shipped = Precomputed.find(name)
    if shipped is None:
        raise LoadError(f"{name} is not open any more: load it again on the Model page")
    card, found = shipped.card(), _parts(name)
    return Workspace(
        key=name,
        title=str(card.get("title", name)),
        source=name,
        description=str(card.get("description", "")),
        layers=tuple(LayerRow.read(layer) for layer in card.get("layers", ())),
        class_names=tuple(card.get("class_names", ())),
        parameters=int(card.get("parameters") or 0),
        sampler=dict(card.get("sampler", {})),
        schedulers=tuple(card.get("schedulers", ())),
        prompted=bool(card.get("prompted")),
        pipeline_class=found.pipeline_class,
        parts=found.parts,
        precomputed=shipped,
    )


def _parts(name: str) -> FolderParts:
    """The components in a bundled model's folder; none while its files are missing or damaged."""
    try:
        return describe_folder(_precomputed.MODELS / name)
    except LoadError:
        return FolderParts(pipeline_class="", parts=())
