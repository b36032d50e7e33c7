"""Looking at a model before it is fetched or opened: what it is, what it takes, whether it can be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpqdm_core.errors import LoadError
from mpqdm_core.families import Family
from mpqdm_core.host_policy import HostPolicy
from mpqdm_core.hub import HubModel, count_elements, describe_hub_model, missing_bytes, parse_hub_source
from mpqdm_core.loading import find_family
from mpqdm_core.memory import MemoryNeed, memory_need
from mpqdm_core.model_files import INDEX_FILE
from mpqdm_core.model_parts import FolderParts, ModelPart, describe_folder
from mpqdm_core.progress import Report, silent
from mpqdm_core.stored_weights import DENOISERS, StoredDenoiser, open_stored


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLook:
    """What can be told of a model without opening it."""

    title: str
    source: str  # folder, file, or "owner/name@commit"
    pipeline_class: str
    family: str  # title of the family; empty if there is none for it
    component: str  # the part that is quantized; empty if there is none
    parts: tuple[ModelPart, ...]  # those that would be opened
    need: MemoryNeed
    problem: str = ""  # why it cannot be opened as a model, in a sentence
    licence: str = ""
    hub: HubModel | None = None  # without the parts that are not needed
    missing: int = 0  # bytes to fetch still

    @property
    def opens(self) -> bool:
        """Whether it can be opened as a model, here and now."""
        return not self.problem and self.need.fits

    @property
    def has_weights(self) -> bool:
        """Whether its outlier statistics can be told from its files."""
        return bool(self.component)

    @property
    def elements(self) -> int:
        """Numbers in all weights."""
        return sum(part.elements or 0 for part in self.parts)


def look_at_folder(path: str | Path) -> ModelLook:
    """Look at a diffusers folder, at the folder of a network alone, or at one safetensors file.

    Raises:
        LoadError: there is nothing of the kind, or its files are damaged.
    """
    folder = Path(path).expanduser()
    try:
        is_pipeline = (folder / INDEX_FILE).is_file()
    except (OSError, ValueError) as error:  # too long a name, a NUL inside
        raise LoadError(f"{str(path)[:80]!r} cannot be opened; give a model folder") from error
    if not is_pipeline:
        return _files_alone(open_stored(folder))
    found = describe_folder(folder)
    family, problem = _family(folder.resolve().name, found.pipeline_class)
    parts = _used(found.parts, family)
    return ModelLook(
        title=folder.resolve().name,
        source=str(folder),
        pipeline_class=found.pipeline_class,
        family="" if family is None else family.title,
        component=_component(parts, family),
        parts=parts,
        need=_need(parts),
        problem=problem,
    )


def look_at_hub(
    source: str,
    policy: HostPolicy,
    *,
    token: str | None = None,
    cache: Path | None = None,
    report: Report = silent,
) -> ModelLook:
    """Look at a model of the Hub: its listing, its index, and the headers of its files.

    Args:
        source: "owner/name", or "owner/name@revision".
        policy: what this server lets its visitors fetch.
        token: see `describe_hub_model`.
        cache: see `fetch_hub_model`.
        report: told for every file; may raise `Cancelled`.

    Raises:
        SettingsError: the policy refuses it.
        LoadError: see `describe_hub_model`.
        Cancelled: raised by `report`.
    """
    repo_id, _ = parse_hub_source(source)
    policy.check_repo(repo_id)
    report(0, 1, f"asking the Hub about {repo_id}")
    model = describe_hub_model(source, token=token)
    family, problem = _family(repo_id, model.pipeline_class)
    model = _without(model, () if family is None else family.unused_parts)
    policy.check_size(repo_id, model.nbytes)
    model = count_elements(model, token=token, report=report)
    return ModelLook(
        title=repo_id,
        source=f"{repo_id}@{model.commit}",
        pipeline_class=model.pipeline_class,
        family="" if family is None else family.title,
        component=_component(model.parts, family),
        parts=model.parts,
        need=_need(model.parts),
        problem=problem,
        licence=model.licence,
        hub=model,
        missing=missing_bytes(model, cache),
    )


def _family(name: str, pipeline_class: str) -> tuple[Family | None, str]:
    index: Mapping[str, Any] = {"_class_name": pipeline_class or None}
    try:
        return find_family(name, index), ""
    except LoadError as error:
        return None, str(error).split(". ")[0]  # what follows is for those who write programs


def _used(parts: Sequence[ModelPart], family: Family | None) -> tuple[ModelPart, ...]:
    unused = () if family is None else family.unused_parts
    return tuple(part for part in parts if part.name not in unused)


def _without(model: HubModel, unused: Sequence[str]) -> HubModel:
    """The model without parts that no picture needs: their files are not fetched."""
    files = {name: size for name, size in model.files.items() if name.split("/")[0] not in unused}
    return replace(model, files=files, parts=tuple(part for part in model.parts if part.name not in unused))


def _component(parts: Sequence[ModelPart], family: Family | None) -> str:
    wanted = DENOISERS if family is None else (family.component,)
    return next((part.name for part in parts if part.name in wanted and part.nbytes), "")


def _need(parts: Sequence[ModelPart]) -> MemoryNeed:
    found = FolderParts(pipeline_class="", parts=tuple(parts))
    return memory_need(found.elements, found.largest_part)


def _files_alone(stored: StoredDenoiser) -> ModelLook:
    """A network without a pipeline: its files can be looked at, and no pictures drawn."""
    part = ModelPart(
        name=stored.source.resolve().stem,
        library="diffusers",
        class_name=stored.class_name or "not known",
        nbytes=stored.nbytes,
        elements=sum(layer.elements for layer in stored.layers),
    )
    return ModelLook(
        title=stored.source.resolve().name,
        source=str(stored.source),
        pipeline_class="",
        family="",
        component=part.name,
        parts=(part,),
        need=_need([part]),
        problem=f"{part.name} is a network without its pipeline: it draws no pictures; "
        "its statistics can be told from its files",
    )
