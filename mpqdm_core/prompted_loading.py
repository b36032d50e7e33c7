"""Loading the pipelines that are asked in words: text encoders and tokenizers beside network and decoder.

As with every folder, classes are looked up in the family's table and nowhere else, weights are safetensors,
nothing is fetched and no code of a model is run.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mpqdm_core.config_limits import check_schedule, check_schedule_config
from mpqdm_core.errors import LoadError
from mpqdm_core.family import Family
from mpqdm_core.model_files import INDEX_FILE, check_safetensors, inside, listed, read_json

PROMPTS_FILE = "prompts.json"  # beside model_index.json, optional: {"prompts": ["...", ...]}
MAX_PROMPTS = 1000
TEXT_WEIGHTS, TEXT_SHARDS = "model.safetensors", "model.safetensors.index.json"

LoadPart = Callable[[Path, str, type[Any], Family | None], Any]


def build_prompted(
    folder: Path,
    index: Mapping[str, Any],
    family: Family,
    load_part: LoadPart,
    lock: AbstractContextManager[Any],
) -> Any:
    """Build the pipeline of a prompted family.

    Args:
        folder: of the model.
        index: its model_index.json.
        family: what that names.
        load_part: loads a model of diffusers from a subfolder.
        lock: held while a library builds a model.

    Raises:
        LoadError: a part is missing, of another class, damaged, or does not fit the others.
    """
    entries = _entries(folder, index, family)
    built: dict[str, Any] = dict.fromkeys(family.unused_parts)
    for part, entry in entries.items():
        if entry is None:
            built[part] = None
            continue
        library, _, name = entry.rpartition(".")
        cls = getattr(importlib.import_module(library), name)
        if part == "scheduler":
            config = read_json(folder, f"{part}/scheduler_config.json")
            check_schedule_config(config, str(folder))
            built[part] = cls.from_config(config)
            check_schedule(built[part], str(folder))
        elif part.startswith("tokenizer"):
            built[part] = _load_tokenizer(folder, part, cls)
        elif library == "diffusers":
            built[part] = load_part(folder, part, cls, family if part == family.component else None)
        else:
            with lock:
                built[part] = _load_text_model(folder, part, cls)
    _check_fit(folder, family, built)
    notes = {name: index[name] for name in family.notes if name in index}
    if "safety_checker" in family.unused_parts:
        notes["requires_safety_checker"] = False
    pipeline_class = getattr(importlib.import_module("diffusers"), family.pipeline_class)
    return pipeline_class(**built, **notes)


def folder_prompts(folder: Path) -> tuple[str, ...] | None:
    """The prompts that a model brings, or None.

    Raises:
        LoadError: their file is no list of sentences.
    """
    if not (folder / PROMPTS_FILE).exists():
        return None
    prompts = read_json(folder, PROMPTS_FILE).get("prompts")
    fine = isinstance(prompts, list) and 0 < len(prompts) <= MAX_PROMPTS
    if not fine or not all(isinstance(prompt, str) and prompt.isprintable() for prompt in prompts or ()):
        raise LoadError(
            f'{folder / PROMPTS_FILE} must be {{"prompts": [...]}} with 1 to {MAX_PROMPTS} lines of text'
        )
    return tuple(prompts or ())


def _entries(folder: Path, index: Mapping[str, Any], family: Family) -> dict[str, str | None]:
    """Each part's class, as the family's table names it; None for a part that may be missing and is."""
    needs = f"a {family.folder_classes[0]} needs {listed(family.library_parts)}"
    found: dict[str, str | None] = {}
    for part, allowed in family.library_parts.items():
        entry = index.get(part)
        if entry in (None, [None, None]):
            if "" not in allowed:
                raise LoadError(f"{folder / INDEX_FILE} names no {part}; {needs}")
            found[part] = None
            continue
        wanted = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        known = next((path for path in allowed if path and path.rpartition(".")[2] == wanted), None)
        if known is None:
            names = listed(path.rpartition(".")[2] for path in allowed if path)
            raise LoadError(f"the {part} of {folder} is a {str(entry)[:80]}; supported are {names}")
        found[part] = known
    extra = [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and entry != [None, None] and not name.startswith("_")
        if name not in family.library_parts and name not in family.unused_parts and name not in family.notes
    ]
    if extra:
        raise LoadError(f"{folder} has parts of another pipeline, {listed(extra)}; {needs} and no more")
    return found


def _load_tokenizer(folder: Path, part: str, cls: Any) -> Any:
    where = _whole_folder(folder, part)
    return cls.from_pretrained(where, local_files_only=True)


def _load_text_model(folder: Path, part: str, cls: Any) -> Any:
    where = _whole_folder(folder, part)
    if "quantization_config" in read_json(folder, f"{part}/config.json"):
        raise LoadError(f"the {part} of {folder} is quantized already; give the full-precision model")
    for name in _weight_names(folder, part):
        check_safetensors(inside(folder, f"{part}/{name}"))
    with _without_bars():
        model, info = cls.from_pretrained(
            where, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    strangers = [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]
    if strangers:
        raise LoadError(
            f"the weights of {where} do not fit its config.json ({listed(strangers)}); "
            "the two must come from one model"
        )
    return model.float()


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the library from drawing progress bars on the console; the caller holds the lock."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _whole_folder(folder: Path, part: str) -> Path:
    """The subfolder of a part, nothing in it a link out of the model."""
    where = inside(folder, part)
    if not where.is_dir():
        raise LoadError(
            f"{folder} has no folder {part}, found {listed(os.listdir(folder))}; copy the whole model"
        )
    for name in os.listdir(where):
        inside(folder, f"{part}/{name}")
    return where


def _weight_names(folder: Path, part: str) -> list[str]:
    if (folder / part / TEXT_WEIGHTS).is_file():
        return [TEXT_WEIGHTS]
    if not (folder / part / TEXT_SHARDS).is_file():
        raise LoadError(
            f"{folder / part} has no {TEXT_WEIGHTS}, found {listed(os.listdir(folder / part))}; "
            "write it with pipeline.save_pretrained(folder)"
        )
    shards = read_json(folder, f"{part}/{TEXT_SHARDS}").get("weight_map")
    names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
    if not names or not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
        raise LoadError(f"{folder / part / TEXT_SHARDS} must name files beside it; save the model again")
    return names


def _check_fit(folder: Path, family: Family, built: Mapping[str, Any]) -> None:
    """Refuse parts that load but cannot work together."""
    network, vae = built[family.component].config, (built.get("vae") or built["vqvae"]).config
    channels = network.in_channels if family.unpack is None else network.in_channels // 4
    if channels != vae.latent_channels:
        raise LoadError(
            f"the {family.component} of {folder} works on {channels} channels, its decoder on "
            f"{vae.latent_channels}: supported are networks that are given latents and text alone"
        )
    sized = vae if family.latents is not None else network
    if sized.get("sample_size") is None:
        raise LoadError(f"{folder} does not say its sample_size; add it to its config.json")
