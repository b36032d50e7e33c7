"""The runs one keeps: an SQLite file, a folder of their files, and a copy of every document.

<folder>/runs.sqlite     the runs and sweeps; several processes may read and write at once
<folder>/copies/         every document once more, so that a damaged runs.sqlite can be made again
<folder>/blobs/          pictures and plans, by the hash of their contents
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Any

from mpqdm_core.board.blobs import BlobFolder, StoreError, write_whole, writing
from mpqdm_core.board.run import KeptRun, now
from mpqdm_core.board.schema import migrate
from mpqdm_core.errors import LoadError

DATABASE = "runs.sqlite"
BUSY_S = 20.0  # how long one process waits for another
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
MAX_RUNS = 5_000
ROW = "INTO runs (id, created, kind, state, sweep, document) VALUES (?,?,?,?,?,?)"
ENVIRONMENT = "MPQDM_RUNS"
FOLDER = "mpqdm-explorer"
_REPAIRING = threading.RLock()
logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where runs are kept: the folder in MPQDM_RUNS, or one among the user's data."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / FOLDER
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / FOLDER


class RunStore:
    """Runs in one folder. Objects are cheap: nothing is open between two calls."""

    def __init__(self, folder: str | Path | None = None, *, max_runs: int = MAX_RUNS) -> None:
        """Keep runs in `folder`; None takes `default_folder`. Nothing is written before the first run."""
        self.folder = default_folder() if folder is None else Path(folder)
        self.blobs = BlobFolder(self.folder / "blobs")
        self.notices: list[str] = []  # what was found damaged, in sentences
        self._max_runs = max_runs

    def add(self, run: KeptRun, files: Iterable[bytes] = ()) -> KeptRun:
        """Keep a run and its files; a run with the same id is replaced.

        Args:
            run: names its files by their hashes.
            files: the contents; those already kept may be left out.

        Raises:
            StoreError: it cannot be written, a file is missing, or there are too many runs.
        """
        for data in files:
            self.blobs.put(data)
        if missing := [name for name in run.blobs if not self.blobs.has(name)]:
            raise StoreError(f"run {run.title!r} names a file that is not there: {missing[0][:12]}")
        document = json.dumps(run.as_dict(), allow_nan=False, separators=(",", ":"))
        with self._connected() as connection:
            others = connection.execute("SELECT COUNT(*) FROM runs WHERE id != ?", (run.id,)).fetchone()[0]
            if others >= self._max_runs:
                raise StoreError(f"{others} runs are kept, which is the limit: delete some first")
            with writing(self.folder):
                write_whole(self._copy(run.id), document.encode())
            connection.execute(
                f"INSERT OR REPLACE {ROW}",
                (run.id, run.created, run.kind, run.state, run.sweep, document),
            )
        return run

    def runs(self) -> tuple[KeptRun, ...]:
        """All runs, the oldest first; one whose document is damaged is left out and said in `notices`."""
        if not (self.folder / DATABASE).exists() and not (self.folder / "copies").is_dir():
            return ()
        try:
            rows = self._rows()
        except StoreError:
            if not self.notices:
                raise
            rows = self._rows()  # it was damaged and has been made again
        return tuple(run for name, text in rows if (run := self._read(str(name), text)) is not None)

    def get(self, run_id: str) -> KeptRun | None:
        """One run, or None."""
        if not (self.folder / DATABASE).exists():
            return None
        with self._connected(write=False) as connection:
            row = connection.execute("SELECT document FROM runs WHERE id = ?", (run_id,)).fetchone()
        return None if row is None else self._read(run_id, row[0])

    def note(self, run_id: str, text: str) -> None:
        """Write a note on a run; nothing happens when it is gone."""
        if (run := self.get(run_id)) is not None:
            self.add(run.noted(text))

    def remove(self, ids: Iterable[str]) -> None:
        """Forget runs, and the files that no other run uses.

        Raises:
            StoreError: the file cannot be written.
        """
        gone = list(ids)
        with self._connected() as connection:
            connection.executemany("DELETE FROM runs WHERE id = ?", [(name,) for name in gone])
        for name in gone:
            with suppress(OSError):
                self._copy(name).unlink()
        self.blobs.sweep({blob for run in self.runs() for blob in run.blobs})

    def keep_sweep(self, sweep_id: str, document: dict[str, Any]) -> None:
        """Remember what a sweep was asked for."""
        with self._connected() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO sweeps (id, created, document) VALUES (?,?,?)",
                (sweep_id, now(), json.dumps(document, allow_nan=False)),
            )

    def sweeps(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Id and document of every sweep, the latest first."""
        if not (self.folder / DATABASE).exists():
            return ()
        with self._connected(write=False) as connection:
            rows = connection.execute("SELECT id, document FROM sweeps ORDER BY created DESC").fetchall()
        return tuple((str(name), json.loads(text)) for name, text in rows)

    def _rows(self) -> list[tuple[str, str]]:
        with self._connected(write=False) as connection:
            return connection.execute("SELECT id, document FROM runs ORDER BY created, id").fetchall()

    def _copy(self, run_id: str) -> Path:
        return self.folder / "copies" / f"{run_id}.json"

    def _read(self, name: str, text: str) -> KeptRun | None:
        try:
            return KeptRun.from_dict(json.loads(text))
        except (LoadError, ValueError, RecursionError) as err:
            self._notice(f"Run {name[:8]} is damaged and left out: {err}")
            return None

    def _notice(self, sentence: str) -> None:
        if sentence not in self.notices:
            self.notices.append(sentence)
            logger.warning("%s", sentence)

    @contextmanager
    def _connected(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; a damaged file is set aside and made again from the copies."""
        connection = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as err:
            connection.close()
            if _code(err) not in DAMAGED:
                raise self._told(err) from err
            self._repaired(err).close()
            raise StoreError(f"{self.notices[-1]} Please do that once more.") from err
        finally:
            connection.close()  # takes back what was not committed

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as err:
            if _code(err) in DAMAGED:
                return self._repaired(err)
            raise self._told(err) from err

    def _open(self) -> sqlite3.Connection:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.folder / DATABASE, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _repaired(self, damage: sqlite3.Error) -> sqlite3.Connection:
        with _REPAIRING:
            if (sound := self._sound()) is not None:
                return sound  # another thread has been faster
            aside = self.folder / f"{DATABASE}.damaged-{time_ns()}"
            with writing(self.folder):
                os.replace(self.folder / DATABASE, aside)
                for suffix in ("-wal", "-shm"):
                    (self.folder / f"{DATABASE}{suffix}").unlink(missing_ok=True)
            connection = self._open()
            kept = self._restore(connection)
        self._notice(
            f"The file of kept runs was damaged ({damage}). It was set aside as {aside.name}, and {kept} "
            "runs were read back from their copies."
        )
        return connection

    def _sound(self) -> sqlite3.Connection | None:
        """A connection to the file if all of it can be read."""
        connection = None
        try:
            connection = self._open()
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok":
                return connection
        except sqlite3.DatabaseError as err:
            if _code(err) not in DAMAGED:
                raise self._told(err) from err
        if connection is not None:
            connection.close()
        return None

    def _restore(self, connection: sqlite3.Connection) -> int:
        kept = 0
        connection.execute("BEGIN IMMEDIATE")
        for path in sorted((self.folder / "copies").glob("*.json")):
            text = path.read_text(encoding="utf-8", errors="replace")
            if (run := self._read(path.stem, text)) is not None:
                connection.execute(
                    f"INSERT OR IGNORE {ROW}",
                    (run.id, run.created, run.kind, run.state, run.sweep, text),
                )
                kept += 1
        connection.execute("COMMIT")
        return kept

    def _told(self, err: sqlite3.Error) -> StoreError:
        if _code(err) in FULL:
            return StoreError(
                f"the disk that holds {self.folder} is full or cannot be written ({err}); "
                "every run kept so far is safe"
            )
        return StoreError(f"the file of kept runs in {self.folder} cannot be used: {err}")


def _code(err: sqlite3.Error) -> int:
    """The primary error code; sqlite adds details in the higher bits."""
    return int(getattr(err, "sqlite_errorcode", 0) or 0) & 0xFF
