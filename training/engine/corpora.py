"""Corpora: images with captions in shards, and the index by which training reads them where they lie.

An index is one SQLite file, written once and never changed: the shards with their hashes, every image with its shard,
offset, size, hash, caption, width and height, and what was left out and why. Its content hash is that of shards and
images, by their names below the corpus's folder; two scans of the same files give the same one. Training needs the index,
the folder and that hash. `python -m training.engine.corpora FOLDER INDEX` makes one by hand. No torch is imported here.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from training.engine.manifests import Item
from training.engine.run_files import sync_folder
from training.engine.shards import CorpusRefused, Entry, Problem, Seal, check_seal, open_shard, read_samples, seal

SCHEMA = 1
# All are counted, so many are kept.
KEPT_PROBLEMS = 1000

# report(done, total) in bytes; may raise to stop.
Report = Callable[[int, int], None]

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shards (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE images (number INTEGER PRIMARY KEY, shard INTEGER NOT NULL, member TEXT NOT NULL, start INTEGER NOT NULL,
    size INTEGER NOT NULL, sha256 TEXT NOT NULL, caption TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    UNIQUE (shard, member));
CREATE TABLE problems (number INTEGER PRIMARY KEY, shard TEXT NOT NULL, member TEXT NOT NULL, why TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Summary:
    """What an index holds; `problems` counts what was left out."""

    content_hash: str
    images: int
    shards: int
    problems: int


def find_shards(folder: Path) -> list[Path]:
    """The .tar files in a folder, not in those below it, by name. Raises CorpusRefused where there is none, or where one
    is a link or no plain file."""
    if folder.is_symlink() or not folder.is_dir():
        raise CorpusRefused(f"{folder.name} is no folder.")
    shards = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar")
    if not shards:
        raise CorpusRefused(
            f"The folder {folder.name} has no .tar file. Shards are plain tar files, not compressed ones."
        )
    for path in shards:
        with open_shard(path):
            pass
    return shards


def write_index(
    shards: Sequence[Path], index: Path, report: Report = lambda done, total: None, *, least_side: int = 1
) -> Summary:
    """Scan shards of different names and write their index, whole or not at all. `report(done, total)` counts bytes of
    shards hashed and may raise to stop. Images whose shorter side is below `least_side` pixels are left out.

    Raises CorpusRefused where a shard is no plain tar file or changes meanwhile, where no image is left, and where
    `index` exists.
    """
    if index.exists():
        raise CorpusRefused(f"The index {index.name} exists already, and an index never changes.")
    temporary = index.with_name(f".{index.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
            database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES} BEGIN;")
            _scan(database, shards, report, least_side)
            summary = _seal_index(database, len(shards), least_side)
            database.execute("COMMIT")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(index)
        sync_folder(index.parent)
    except sqlite3.Error as error:
        raise CorpusRefused(f"The index {index.name} cannot be written: {error}.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return summary


def _scan(database: sqlite3.Connection, shards: Sequence[Path], report: Report, least_side: int) -> None:
    total, done = sum(path.stat().st_size for path in shards), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        report(min(done, total), total)

    for number, path in enumerate(shards):
        with open_shard(path) as file:
            sealed = seal(file, tell)
            for sample in read_samples(path, file, least_side):
                tell(0)
                _insert(database, number, path.name, sample)
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (sealed.size, sealed.mtime_ns):
                raise CorpusRefused(f"The shard {path.name} changed while it was read.")
        values = (number, path.name, sealed.size, sealed.mtime_ns, sealed.sha256)
        database.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?)", values)


def _insert(database: sqlite3.Connection, shard: int, shard_name: str, sample: Entry | Problem) -> None:
    if isinstance(sample, Entry):
        done = database.execute(
            "INSERT OR IGNORE INTO images (shard, member, start, size, sha256, caption, width, height) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                shard,
                sample.member,
                sample.offset,
                sample.size,
                sample.sha256,
                sample.caption,
                sample.width,
                sample.height,
            ),
        )
        if done.rowcount:
            return
        sample = Problem(sample.member, "is there twice")
    values = (shard_name, sample.member, sample.why)
    database.execute("INSERT INTO problems (shard, member, why) VALUES (?, ?, ?)", values)


def _seal_index(database: sqlite3.Connection, shards: int, least_side: int) -> Summary:
    (images,) = database.execute("SELECT count(*) FROM images").fetchone()
    (problems,) = database.execute("SELECT count(*) FROM problems").fetchone()
    if not images:
        first = database.execute("SELECT shard, member, why FROM problems ORDER BY number LIMIT 1").fetchone()
        example = f" The first that was left out: {first[1]} in {first[0]} {first[2]}." if first else ""
        raise CorpusRefused(f"The shards hold no image with a caption.{example}")
    database.execute("DELETE FROM problems WHERE number > ?", (KEPT_PROBLEMS,))
    digest = _start_hash(_shards(database))
    for row in _images(database):
        _hash_row(digest, row)
    summary = Summary(digest.hexdigest(), images, shards, problems)
    facts = {"schema": SCHEMA, "content_hash": summary.content_hash, "problems": problems, "least_side": least_side}
    database.executemany("INSERT INTO facts VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()])
    return summary


def read_problems(index: Path) -> list[str]:
    """The first problems as sentences: "0007.png in a.tar has no caption beside it."."""
    with _open_index(index) as database:
        rows = database.execute("SELECT member, shard, why FROM problems ORDER BY number").fetchall()
    return [f"{member} in {shard} {why}." for member, shard, why in rows]


def read_corpus(index: Path, folder: Path, content_hash: str, report: Report = lambda done, total: None) -> list[Item]:
    """The images of a corpus in the order of its index. `report(done, total)` counts bytes of shards and may raise to stop.

    Raises CorpusRefused where the index is not that of `content_hash`, or a shard in `folder` is missing or changed.
    """
    with _open_index(index) as database:
        shards = list(_shards(database))
        paths = [folder / name for _, name, *_ in shards]
        digest = _start_hash(shards)
        items = []
        for row in _images(database):
            _hash_row(digest, row)
            shard, member, start, size, sha256, caption, width, height = row
            place = {"member": member, "offset": start, "size": size}
            items.append(Item(paths[shard], caption, sha256, **place, width=width, height=height))
    if digest.hexdigest() != content_hash:
        raise CorpusRefused(f"The corpus index {index.name} is not the one that the recipe names: its hash differs.")
    total, done = sum(size for _, _, size, _, _ in shards), 0
    for path, (_, _, size, mtime_ns, sha256) in zip(paths, shards, strict=True):
        check_seal(path, Seal(size, mtime_ns, sha256), _counter(done, total, report))
        done += size
        report(done, total)
    return items


def _counter(before: int, total: int, report: Report) -> Callable[[int], None]:
    done = before

    def tell(count: int) -> None:
        nonlocal done
        done += count
        report(min(done, total), total)

    return tell


@contextmanager
def _open_index(index: Path) -> Iterator[sqlite3.Connection]:
    try:
        # Nobody writes to it: no locks, no journal.
        address = f"file:{quote(str(index.resolve()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as database:
            schema = database.execute("SELECT value FROM facts WHERE name = 'schema'").fetchone()
            if schema != (str(SCHEMA),):
                raise CorpusRefused(f"The corpus index {index.name} is of another schema.")
            yield database
    except sqlite3.Error:
        raise CorpusRefused(f"The corpus index {index.name} cannot be read.") from None


def _shards(database: sqlite3.Connection) -> Iterator[Any]:
    return database.execute("SELECT number, name, size, mtime_ns, sha256 FROM shards ORDER BY number")


def _images(database: sqlite3.Connection) -> Iterator[Any]:
    return database.execute(
        "SELECT shard, member, start, size, sha256, caption, width, height FROM images ORDER BY number"
    )


def _start_hash(shards: Iterator[Any] | Sequence[Any]) -> Any:
    """Times are no part of it: a copy of a corpus is the same corpus."""
    named = [[name, size, sha256] for _, name, size, _, sha256 in shards]
    return hashlib.sha256(json.dumps({"schema": SCHEMA, "shards": named}).encode())


def _hash_row(digest: Any, row: Sequence[Any]) -> None:
    digest.update(f"\n{json.dumps(row)}".encode())


def main(arguments: list[str] | None = None) -> int:
    """Index a folder of shards by hand."""
    parser = argparse.ArgumentParser(prog="python -m training.engine.corpora", description="Index a folder of shards.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that holds the .tar files")
    parser.add_argument("index", type=Path, metavar="INDEX", help="the file to write")
    parser.add_argument("--least-side", type=int, default=1, help="leave out images whose shorter side is below")
    given = parser.parse_args(arguments)
    try:
        summary = write_index(find_shards(given.folder), given.index, least_side=given.least_side)
    except CorpusRefused as refused:
        sys.stderr.write(f"{refused.sentence}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or given.folder} cannot be read or written: {error.strerror}.\n")
        return 1
    sys.stdout.write(f"{summary.images} images in {summary.shards} shards, {summary.problems} left out\n")
    sys.stdout.writelines(f"{problem}\n" for problem in read_problems(given.index)[:20])
    sys.stdout.write(f"{summary.content_hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
