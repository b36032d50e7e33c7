"""Tables of the run store and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3

from mpqdm_core.board.blobs import StoreError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY, created TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
            sweep TEXT NOT NULL, document TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX runs_by_time ON runs (created)",
        """CREATE TABLE sweeps (
            id TEXT PRIMARY KEY, created TEXT NOT NULL, document TEXT NOT NULL
        ) WITHOUT ROWID""",
    ),
)
"""Statement by statement what leads from version i to i + 1; entries are added at the end, never changed."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to the newest version, one step a transaction.

    Raises:
        StoreError: the file was written by a newer program.
    """
    if _version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")  # of several processes, one migrates and the others wait
    try:
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the kept runs were written by a newer version of this program (schema {version}, "
                f"this one knows {len(MIGRATIONS)}): update it, or set MPQDM_RUNS to another folder"
            )
        for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in step:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
