"""Which file of a store has which entry: a SQLite file beside the store's folder, so that a start looks up its own entries
and reads nothing of the others'.

It is made from the files and may be deleted at any time. What it says is never trusted alone: an entry's digest is compared
with what the file has. Where it cannot be written (a full disk, a file system without locks) a process makes one in memory.
"""

import os
import sqlite3
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from generation.engine.safetensors_headers import HeaderRefused, read_header

ENDING = ".safetensors"
# How long another process may be at it.
LOCK_SECONDS = 30.0
# Files that are noted in one transaction.
FILES_AT_ONCE = 100
# `digest` is NULL where the file has not been read since it was found.
TABLES = (
    "CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, file INTEGER NOT NULL, digest BLOB) WITHOUT ROWID",
)
# Which file's entry counts where two have the same.
NEWEST = "INSERT OR REPLACE INTO entries (key, file, digest) VALUES (?, ?, ?)"
OLDEST = "INSERT OR IGNORE INTO entries (key, file, digest) VALUES (?, ?, ?)"

Answer = TypeVar("Answer")


class StoreIndex:
    """The entries of a folder's files. `unreadable` are the names of files that are no whole safetensors files.

    Only one thread may use it; any number of processes may have one of the same folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.sqlite")
        self.unreadable: list[str] = []
        try:
            self._open(str(self.path))
        except sqlite3.Error as error:
            self._open_anew(error)

    def __len__(self) -> int:
        query = "SELECT count(*) FROM entries JOIN files ON files.id = entries.file"
        return int(self._ask(lambda database: database.execute(query).fetchone()[0]))

    def find(self, key: str) -> tuple[str, bytes | None] | None:
        """The name of the file that should have the entry, and the entry's digest where it is known."""
        query = "SELECT name, digest FROM entries JOIN files ON files.id = entries.file WHERE key = ?"
        found = self._ask(lambda database: database.execute(query, (key,)).fetchone())
        return (str(found[0]), found[1]) if found else None

    def add(self, name: str, digests: Mapping[str, bytes | None]) -> None:
        """Note what a file has."""
        self._ask(lambda database: _add(database, {name: digests}, NEWEST))

    def drop(self, name: str) -> None:
        """Forget a file."""
        self._ask(lambda database: _drop(database, [name]))

    def _compare(self, database: sqlite3.Connection) -> None:
        """Forget files that are gone, and note those that another process, or an older version, did not get to note."""
        present = {each.name for each in os.scandir(self.folder) if is_shard(each.name)}
        known = {name for (name,) in database.execute("SELECT name FROM files")}
        if known - present:
            _drop(database, sorted(known - present))
        new = sorted(present - known)
        for start in range(0, len(new), FILES_AT_ONCE):
            _add(database, dict(self._read_keys(new[start : start + FILES_AT_ONCE])), OLDEST)

    def _read_keys(self, names: list[str]) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """The entries of files, by their headers alone."""
        for name in names:
            try:
                yield name, dict.fromkeys(read_header(self.folder / name))
            except FileNotFoundError:
                continue  # Trimmed since.
            except HeaderRefused:
                self.unreadable.append(name)

    def _ask(self, ask: Callable[[sqlite3.Connection], Answer]) -> Answer:
        try:
            return ask(self._database)
        except sqlite3.Error as error:
            self._open_anew(error)
        return ask(self._database)

    def _open(self, path: str) -> None:
        # It may be closed by whatever thread collects the last reference to it.
        database = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, database.close)
        # What a crash of the machine leaves of it is noticed, or is an entry that is not what its digest says.
        database.execute("PRAGMA synchronous = OFF")
        for table in TABLES:
            database.execute(table)
        self._compare(database)
        self._database = database

    def _open_anew(self, error: sqlite3.Error) -> None:
        sys.stderr.write(f"The index {self.path} cannot be used ({error}) and is made anew.\n")
        if not isinstance(error, sqlite3.OperationalError):
            # Damaged, not merely locked or without room.
            for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
                path.unlink(missing_ok=True)
            with suppress(sqlite3.Error):
                self._open(str(self.path))
                return
        self._open(":memory:")


def is_shard(name: str) -> bool:
    """Whether a file of a store's folder is one of its shards, by its name."""
    return name.endswith(ENDING) and not name.startswith(".")


@contextmanager
def _changing(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _add(database: sqlite3.Connection, files: Mapping[str, Mapping[str, bytes | None]], query: str) -> None:
    with _changing(database):
        for name, digests in files.items():
            database.execute("INSERT OR IGNORE INTO files (name) VALUES (?)", (name,))
            (number,) = database.execute("SELECT id FROM files WHERE name = ?", (name,)).fetchone()
            rows = [(key, number, digest) for key, digest in digests.items()]
            database.executemany(query, rows)


def _drop(database: sqlite3.Connection, names: list[str]) -> None:
    with _changing(database):
        database.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])
        database.execute("DELETE FROM entries WHERE file NOT IN (SELECT id FROM files)")
