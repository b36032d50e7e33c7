"""Serve the app with a made-up model: `python tests/browser/serve.py <folder> <port>`; its own process."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "pages")]

import synthetic  # noqa: E402 - found through the path above

from app import build_app  # noqa: E402
from pages import _precomputed  # noqa: E402
from pages._theme import launch_settings  # noqa: E402


def main():
    folder = Path(sys.argv[1])
    synthetic.write(folder / "data")
    synthetic.write_weights(folder / "models")
    _precomputed.DATA, _precomputed.MODELS = folder / "data", folder / "models"
    build_app().launch(server_name="127.0.0.1", server_port=int(sys.argv[2]), quiet=True, **launch_settings())


if __name__ == "__main__":
    main()
