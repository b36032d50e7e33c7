"""What the launcher starts in the tests: `launched_sweep.py <folder> <bits of the cell that dies>`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from engine_work import SETTINGS, Work, laboratory  # noqa: E402

from mpqdm_core.board.engine import run_sweep  # noqa: E402
from mpqdm_core.board.processes import AccelerateEngine  # noqa: E402
from mpqdm_core.board.store import RunStore  # noqa: E402


def main():
    folder, dies = Path(sys.argv[1]), float(sys.argv[2])
    engine = AccelerateEngine()
    outcome = run_sweep(
        laboratory(), SETTINGS, RunStore(folder / "runs"), engine=engine, worker=Work(folder, dies=dies)
    )
    if engine.is_first:
        (folder / "outcome").write_text(f"{outcome.found} {outcome.computed} {outcome.failed}")


if __name__ == "__main__":
    main()
