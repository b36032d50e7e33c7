"""Loading models: the bundled ones by name, and diffusers folders of the supported families by path.

A folder is looked through before anything is built: classes against the family table, weights against their
configuration. No pickle is opened, no code of a model is run, nothing is fetched.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from safetensors import SafetensorError

from mpqdm_core.bundled import BUNDLED_FOLDER as BUNDLED_FOLDER
from mpqdm_core.bundled import ModelCard as ModelCard
from mpqdm_core.bundled import bundled_models as bundled_models
from mpqdm_core.config_limits import check_model_config, check_schedule, check_schedule_config, check_work
from mpqdm_core.denoiser import PIPELINE_NOTES, Denoiser
from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.families import FAMILIES, Family, make_denoiser
from mpqdm_core.folder_notes import MAX_GUIDANCE, folder_sampler
from mpqdm_core.model_files import (
    INDEX_FILE,
    check_unchanged,
    find_weights,
    inside,
    listed,
    read_json,
    snapshot,
)
from mpqdm_core.prompted_loading import build_prompted, folder_prompts
from mpqdm_core.strict_json import shown

PICTURE_CHANNELS = (1, 3)
REASON_LENGTH = 240  # characters of another library's message
ALLOCATION_FAILURE = "can't allocate memory"  # in the RuntimeError by which torch says MemoryError

# What diffusers raises on a configuration that fits no model; the original follows as the cause.
BUILD_FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NameError,  # diffusers leaves a variable unset where a setting is none of those it knows
    ArithmeticError,
    RuntimeError,
    OSError,
    MemoryError,
    SafetensorError,
)

# While diffusers builds a model it replaces torch's initialisers for the whole process: one at a time.
BUILD_LOCK = threading.Lock()


def load_denoiser(source: str | Path, *, bundled: Path = BUNDLED_FOLDER) -> Denoiser:
    """Load a model on the CPU in float32.

    Args:
        source: the name of a bundled model, or the path of a diffusers folder.
        bundled: where the bundled models are.

    Raises:
        LoadError: there is no such model, or it is damaged, unsafe or of an unsupported kind.
    """
    folder = resolve_source(source, bundled=bundled)
    before = snapshot(folder)
    try:
        index = read_json(folder, INDEX_FILE)
        family = find_family(folder, index)
        prompts = folder_prompts(folder) if family.prompted else None
        if family.prompted:
            pipeline = build_prompted(folder, index, family, _load_part, BUILD_LOCK)
        else:
            pipeline = _build(folder, index, family, _part_folders(folder, index, family))
        name = folder.resolve().name
        denoiser = make_denoiser(pipeline, family, name=name, source=str(source), prompts=prompts)
        sampler = folder_sampler(folder, denoiser.sampler, guided=family.conditional)
    except LoadError:
        check_unchanged(folder, before)  # the better explanation, if it is one
        raise
    except (*BUILD_FAILURES, SettingsError) as error:
        check_unchanged(folder, before)
        reason = _first_line(error)
        if isinstance(error, MemoryError) or ALLOCATION_FAILURE in reason:
            raise LoadError(
                f"{folder} does not fit into memory; close other models or take a smaller one"
            ) from error
        raise LoadError(f"{folder} cannot be built: {reason}; save the model again") from error
    check_unchanged(folder, before)
    return replace(denoiser, sampler=sampler)


def resolve_source(source: str | Path, *, bundled: Path = BUNDLED_FOLDER) -> Path:
    """The folder that a bundled name or a path means.

    Raises:
        LoadError: it means none.
    """
    names = [card.name for card in bundled_models(bundled)]
    if isinstance(source, str) and source in names:
        return bundled / source
    known = f"give a diffusers folder or a bundled model ({listed(names)})"
    try:
        folder = Path(source).expanduser()
        if not str(source).strip() or not folder.exists():
            raise LoadError(f"there is no model or folder {str(source)!r}; {known}")
        if not folder.is_dir():
            raise LoadError(f"{folder} is a file; {known}")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL inside, no home, not allowed
        reason = error.strerror if isinstance(error, OSError) else _first_line(error)
        raise LoadError(f"{str(source)[:80]!r} cannot be opened: {reason}; {known}") from error
    return folder


def find_family(folder: str | Path, index: Mapping[str, Any]) -> Family:
    """The family of a pipeline by the class that its index names.

    Args:
        folder: for the sentence.
        index: its model_index.json.

    Raises:
        LoadError: there is none for it.
    """
    found = index.get("_class_name")
    if isinstance(found, str):
        for family in FAMILIES.values():
            if found in family.folder_classes:
                return family
    known = listed(name for family in FAMILIES.values() for name in family.folder_classes)
    what = "pipeline without a class name" if found is None else shown(found)
    raise LoadError(
        f"{folder} holds a {what}; supported are {known}. Without drawing, the weights of any network of "
        "diffusers can be analysed, allocated and rounded: see open_stored and quantize_weights"
    )


def _part_folders(folder: Path, index: Mapping[str, Any], family: Family) -> dict[str, str]:
    """Map each component of the family to the name of its subfolder, its class checked."""
    present = {
        name: entry
        for name, entry in index.items()
        if not name.startswith("_")
        and name not in PIPELINE_NOTES
        and entry != [None, None]
        and entry is not None
        and not isinstance(entry, dict)  # names of classes
    }
    needs = f"a {family.folder_classes[0]} needs {listed(family.parts)}"
    folders: dict[str, str] = {}
    for part, classes in family.parts.items():
        name = part if part in present else family.alternatives.get(part, part)
        allowed = [cls.__name__ for cls in classes]
        if name not in present:
            raise LoadError(f"{folder / INDEX_FILE} names no {part}, found {listed(present)}; {needs}")
        entry = present.pop(name)
        if not (
            isinstance(entry, list) and len(entry) == 2 and entry[0] == "diffusers" and entry[1] in allowed
        ):
            raise LoadError(
                f"the {name} of {folder} is a {shown(entry)}; supported are diffusers' {listed(allowed)}"
            )
        folders[part] = name
    if present:
        raise LoadError(f"{folder} has parts of another pipeline, {listed(present)}; {needs} and no more")
    return folders


def _build(folder: Path, index: Mapping[str, Any], family: Family, folders: Mapping[str, str]) -> Any:
    built: dict[str, Any] = {}
    for part, name in folders.items():
        if part == "scheduler":
            config = read_json(folder, f"{name}/scheduler_config.json")
            check_schedule_config(config, str(folder))
            built[part] = DDIMScheduler.from_config(config)
            check_schedule(built[part], str(folder))
        else:
            cls = next(cls for cls in family.parts[part] if cls.__name__ == index[name][1])
            built[part] = _load_part(folder, name, cls, family if part == family.component else None)
    _check_fit(folder, family, built)
    extra = {name: index.get(name) for name in family.notes}
    scale = extra.get("guidance_scale")
    if scale is not None and not (isinstance(scale, int | float) and 0 <= scale <= MAX_GUIDANCE):
        raise LoadError(
            f"guidance_scale in {folder / INDEX_FILE} must be a number in [0, {MAX_GUIDANCE}], "
            f"got {shown(scale)}"
        )
    return family.pipeline_class(**built, **extra)


def load_network(folder: Path, name: str, cls: type[Any]) -> Any:
    """Load a model of diffusers from a subfolder, on the CPU in float32.

    Args:
        folder: of the pipeline, or the parent of the model's own.
        name: of the subfolder.
        cls: of the model.

    Raises:
        LoadError: its files are missing, damaged, or do not fit each other.
    """
    return _load_part(folder, name, cls)


def _load_part(folder: Path, name: str, cls: type[Any], family: Family | None = None) -> Any:
    config = read_json(folder, f"{name}/config.json")
    if "quantization_config" in config:
        raise LoadError(f"the {name} of {folder} is quantized already; give the full-precision model")
    weights = find_weights(folder, name)
    where = str(inside(folder, name))
    check_model_config(config, weights.tensors, where)
    with BUILD_LOCK:
        with torch.device("meta"):
            sketch = cls.from_config(config)
            expected = sum(tensor.numel() for tensor in sketch.state_dict().values())
        if weights.elements != expected:
            raise LoadError(
                f"the weights of {inside(folder, name)} hold {weights.elements} numbers, its config.json "
                f"describes {expected}; the two must come from one model"
            )
        if family is not None:
            check_work(sketch, family.example, expected, where)
        model, info = cls.from_pretrained(
            inside(folder, name),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    strangers = [
        *info["missing_keys"],
        *info["unexpected_keys"],
        *(key for key, *_ in info["mismatched_keys"]),
    ]
    if strangers:
        raise LoadError(
            f"the weights of {inside(folder, name)} do not fit its config.json ({listed(strangers)}); "
            "the two must come from one model"
        )
    return model.float()


def _check_fit(folder: Path, family: Family, built: Mapping[str, Any]) -> None:
    """Refuse parts that load but cannot work together."""
    part, network = family.component, built[family.component].config
    vae = built.get("vae", built.get("vqvae"))
    classes = network.get("num_class_embeds") or network.get("class_embed_type")
    pictures = network.in_channels if vae is None else vae.config.out_channels
    variance = (
        part == "transformer" and network.out_channels == 2 * network.in_channels
    )  # its pipeline drops it
    if network.out_channels not in (network.in_channels, None) and not variance:
        raise LoadError(
            f"the {part} of {folder} has {network.in_channels} channels in and {network.out_channels} out; "
            "supported are networks that predict the noise alone, with as many out as in"
        )
    if network.sample_size is None:
        raise LoadError(f"the {part} of {folder} does not say its sample_size; add it to {part}/config.json")
    if classes and not family.conditional:
        raise LoadError(
            f"the unet of {folder} takes class labels, which a {family.folder_classes[0]} never gives; "
            f"save it as a {FAMILIES['class-conditional-ldm'].folder_classes[0]}"
        )
    if vae is not None and vae.config.latent_channels != network.in_channels:
        raise LoadError(
            f"the {part} of {folder} works on {network.in_channels} channels, its decoder on "
            f"{vae.config.latent_channels}; the two must come from one model"
        )
    if pictures not in PICTURE_CHANNELS:
        raise LoadError(
            f"{folder} makes pictures of {pictures} channels; supported are 1 (grey) and 3 (colour)"
        )


def _first_line(error: BaseException) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], REASON_LENGTH)
