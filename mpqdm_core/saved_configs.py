"""What configurations that diffusers has just written say about the machine that wrote them."""

from __future__ import annotations

import json
from pathlib import Path

ORIGIN = "_name_or_path"  # where a part was loaded from: a folder of this machine, of no use to others


def forget_origins(folder: Path) -> None:
    """Take the folders that parts were loaded from out of their configurations.

    Args:
        folder: of a pipeline, as `save_pretrained` of it or of its parts wrote it.
    """
    for path in sorted(folder.rglob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.pop(ORIGIN, None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
