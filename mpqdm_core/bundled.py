"""The models that ship with the project, by the cards in their folders; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpqdm_core.model_files import INDEX_FILE

BUNDLED_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "models"
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A bundled model, as a list of models shows it."""

    name: str  # what load_denoiser takes
    title: str
    description: str  # the first paragraph of its card
    size_mb: float  # of all its files, 1 MB = 10**6 bytes
    folder: Path


def bundled_models(folder: Path = BUNDLED_FOLDER) -> tuple[ModelCard, ...]:
    """The models that ship with the project, by name; none if the folder is empty."""
    return tuple(_card(index.parent) for index in sorted(folder.glob(f"*/{INDEX_FILE}")))


def _card(folder: Path) -> ModelCard:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    body = text.split("---", 2)[2] if text.startswith("---") and text.count("---") >= 2 else text
    blocks = [block.strip() for block in body.split("\n\n") if block.strip()]
    title = next(
        (block.splitlines()[0].lstrip("# ") for block in blocks if block.startswith("#")), folder.name
    )
    prose = next((" ".join(block.split()) for block in blocks if block[0] not in "#|-!<"), "")
    return ModelCard(
        name=folder.name, title=title, description=prose, size_mb=size / BYTES_PER_MB, folder=folder
    )
