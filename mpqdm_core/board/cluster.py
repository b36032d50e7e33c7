"""A sweep on a Ray cluster: one task a cell, results kept here as they come.

Workers need the model at the same place, and this package; they share no disk with the one who asks. A worker
that dies is replaced, and its cell is begun again a few times before it is given up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqdm_core.board.engine import FULL, Keep, Worker
from mpqdm_core.board.sweep import Cell
from mpqdm_core.errors import SettingsError
from mpqdm_core.progress import Report, silent

if TYPE_CHECKING:
    from mpqdm_core.board.laboratory import Computed

INTERVAL_S = 0.5  # between two looks at the tasks, and so until Stop is heard
RETRIES = 2
MISSING = (
    "the engine ray needs a package that is not installed: "
    "pip install -r requirements-cluster.txt -c constraints.txt"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Hands every cell to the cluster at once; Ray decides which machine takes which."""

    address: str | None = None  # None: a cluster that runs on this machine, or else a new one
    retries: int = RETRIES  # of a cell whose worker died

    def run(self, cells: Sequence[Cell], worker: Worker, keep: Keep, report: Report) -> None:
        """Compute every cell; see `mpqdm_core.board.engine.Engine`.

        Raises:
            SettingsError: Ray is not installed, or there is no cluster at the address.
        """
        ray = import_ray()
        with _connected(ray, self.address):
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
            task = ray.remote(_compute).options(num_cpus=1, num_gpus=gpus, max_retries=self.retries)
            work = ray.put(worker)  # once, however many cells there are
            waiting = {task.remote(work, cell): cell for cell in cells}
            try:
                self._collect(ray, waiting, keep, report)
            finally:
                for left in waiting:
                    with suppress(ray.exceptions.RayError):
                        ray.cancel(left, force=True)

    def _collect(self, ray: Any, waiting: dict[Any, Cell], keep: Keep, report: Report) -> None:
        """Keep what is done until nothing is left; entries leave `waiting` as they are kept."""
        count = len(waiting)
        while waiting:
            done = count - len(waiting)
            report(done * FULL, count * FULL, f"{done} of {count} cells computed")
            for ready in ray.wait(list(waiting), timeout=INTERVAL_S)[0]:
                keep(waiting[ready], self._result(ray, ready))
                del waiting[ready]
        report(count * FULL, count * FULL, f"{count} cells computed")

    def _result(self, ray: Any, ready: Any) -> Computed | str:
        """What a finished task gave, or the sentence of why there is nothing."""
        try:
            made: Computed | str = ray.get(ready)
            return made
        except ray.exceptions.RayTaskError as err:
            return f"the worker could not begin: {_first_line(err.cause or err)}"
        except ray.exceptions.OutOfMemoryError:
            return "the worker's machine ran out of memory"
        except ray.exceptions.RayError as err:
            return f"its worker was lost {self.retries + 1} times ({type(err).__name__})"


def _compute(worker: Worker, cell: Cell) -> Computed | str:
    """What a task does, in its worker."""
    return worker(cell, silent)


def import_ray() -> Any:
    """The package.

    Raises:
        SettingsError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as err:
        raise SettingsError(MISSING) from err
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection for as long as it is needed; one that was there before stays."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (ConnectionError, OSError, RuntimeError, ValueError) as err:
        raise SettingsError(f"no Ray cluster can be used at {address}: {_first_line(err)}") from err
    try:
        yield
    finally:
        ray.shutdown()


def _first_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0] if lines else 'no more is known'}"
