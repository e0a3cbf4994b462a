"""Corpora: images in shards, with captions or without, and the index by which training reads them where they lie.

An index is one SQLite file, written once and never changed: the shards with their hashes, every image with its shard,
offset, size, hash, caption, width and height, and what was left out and why. Its content hash is that of shards and
images, by their names below the corpus's folder; two scans of the same files give the same one. Training needs the index,
the folder and that hash. `python -m training.engine.corpora FOLDER INDEX` makes one by hand. No torch is imported here.
"""

import argparse
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from training.engine.corpus_index import (
    SCHEMA,
    Report,
    Summary,
    check_index,
    check_shards,
    hash_content,
    read_problems,
    shards_of,
)
from training.engine.corpus_items import CorpusItems
from training.engine.places import Place, find_shards, place_of, sealed_shard, status_of
from training.engine.run_files import sync_folder
from training.engine.shards import CAPTIONS, CorpusRefused, Entry, Problem, Wanted, read_samples

# All are counted, so many are kept.
KEPT_PROBLEMS = 1000

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shards (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE images (number INTEGER PRIMARY KEY, shard INTEGER NOT NULL, member TEXT NOT NULL, start INTEGER NOT NULL,
    size INTEGER NOT NULL, sha256 TEXT NOT NULL, caption TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    UNIQUE (shard, member));
CREATE TABLE problems (number INTEGER PRIMARY KEY, shard TEXT NOT NULL, member TEXT NOT NULL, why TEXT NOT NULL);
"""


def write_index(
    shards: Sequence[Place],
    index: Path,
    report: Report = lambda done, total: None,
    *,
    least_side: int = 1,
    captions: str = "needed",
) -> Summary:
    """Scan shards of different names and write their index, whole or not at all. `report(done, total)` counts bytes of
    shards and may raise to stop; the next scan to the same index goes on after the last shard that was read whole.
    Images whose shorter side is below `least_side` pixels are left out, and those without a caption as `captions` says (see
    `shards.CAPTIONS`).

    Raises CorpusRefused where a shard is no plain tar file or changes meanwhile, where no image is left, where another
    scan is writing the index, and where `index` exists.
    """
    if index.exists():
        raise CorpusRefused(f"The index {index.name} exists already, and an index never changes.")
    partial = partial_of(index)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None, timeout=0)) as database:
            wanted = Wanted(least_side, captions)
            _begin(database, shards, wanted)
            _scan(database, shards, index.parent, report, wanted)
            summary = _seal_index(database, len(shards))
    except sqlite3.Error as error:
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        why = "another scan is writing it" if busy else str(error)
        raise CorpusRefused(f"The index {index.name} cannot be written: {why}.") from None
    partial.chmod(0o444)
    partial.replace(index)
    sync_folder(index.parent)
    return summary


def partial_of(index: Path) -> Path:
    """Where a scan writes an index until it is whole."""
    return index.with_name(f".{index.name}.partial")


def _begin(database: sqlite3.Connection, shards: Sequence[Place], wanted: Wanted) -> None:
    """Keep what a stopped scan has read of the same shards, or begin anew."""
    # One commit a shard: they are worth a sync to the disk, and what is committed outlives a kill.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN EXCLUSIVE")
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        for statement in filter(str.strip, _TABLES.split(";")):
            database.execute(statement)
    # Once sizes were those of the files as they lie: what such a scan has read is read anew.
    asked = {"schema": str(SCHEMA), "sizes": "upright", **{name: str(value) for name, value in asdict(wanted).items()}}
    said = dict(database.execute("SELECT name, value FROM facts").fetchall())
    done = [(name, size, mtime_ns) for _, name, size, mtime_ns, _ in shards_of(database)]
    present = [(path.name, status.size, status.mtime_ns) for path in shards for status in [status_of(path)]]
    # A scan that was stopped at its very end has been sealed: it is read anew as well.
    if said != asked or done != present[: len(done)]:
        for table in ("facts", "shards", "images", "problems"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own.
        database.executemany("INSERT INTO facts VALUES (?, ?)", asked.items())
    database.execute("COMMIT")


def _scan(database: sqlite3.Connection, shards: Sequence[Place], work: Path, report: Report, wanted: Wanted) -> None:
    sizes = [status_of(path).size for path in shards]
    total, done = sum(sizes), 0
    (read,) = database.execute("SELECT count(*) FROM shards").fetchone()

    def tell(count: int) -> None:
        nonlocal done
        done += count
        report(min(done, total), total)

    tell(sum(sizes[:read]))
    for number, path in enumerate(shards[read:], start=read):
        database.execute("BEGIN")
        with sealed_shard(path, work, tell) as (file, sealed):
            for sample in read_samples(path.name, file, wanted):
                tell(0)
                _insert(database, number, path.name, sample)
        values = (number, path.name, sealed.size, sealed.mtime_ns, sealed.sha256)
        database.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?)", values)
        database.execute("COMMIT")


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


def _seal_index(database: sqlite3.Connection, shards: int) -> Summary:
    (images,) = database.execute("SELECT count(*) FROM images").fetchone()
    (problems,) = database.execute("SELECT count(*) FROM problems").fetchone()
    if not images:
        first = database.execute("SELECT shard, member, why FROM problems ORDER BY number LIMIT 1").fetchone()
        example = f" The first that was left out: {first[1]} in {first[0]} {first[2]}." if first else ""
        raise CorpusRefused(f"The shards hold no image that is wanted.{example}")
    (uncaptioned,) = database.execute("SELECT count(*) FROM images WHERE caption = ''").fetchone()
    database.execute("BEGIN")
    database.execute("DELETE FROM problems WHERE number > ?", (KEPT_PROBLEMS,))
    summary = Summary(hash_content(database), images, shards, problems, uncaptioned)
    facts = {"content_hash": summary.content_hash, "problems": problems, "uncaptioned": uncaptioned}
    database.executemany("INSERT INTO facts VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()])
    database.execute("COMMIT")
    return summary


def read_corpus(
    index: Path,
    folder: Place,
    content_hash: str,
    report: Report = lambda done, total: None,
    *,
    prompt_free: bool = False,
) -> CorpusItems:
    """The images of a corpus in the order of its index, read as they are asked for; `prompt_free` gives all of them the
    empty caption. `report(done, total)` counts bytes of shards and may raise to stop.

    Raises CorpusRefused where the index is not that of `content_hash`, or a shard in `folder` is missing or changed.
    """
    check_index(index, content_hash)
    check_shards(index, folder, report)
    return CorpusItems(index, folder, prompt_free)


def main(arguments: list[str] | None = None) -> int:
    """Index a folder of shards by hand."""
    parser = argparse.ArgumentParser(prog="python -m training.engine.corpora", description="Index a folder of shards.")
    parser.add_argument("folder", metavar="FOLDER", help="the folder that holds the .tar files, or s3://BUCKET/PREFIX")
    parser.add_argument("index", type=Path, metavar="INDEX", help="the file to write")
    parser.add_argument("--least-side", type=int, default=1, help="leave out images whose shorter side is below")
    parser.add_argument(
        "--captions",
        choices=CAPTIONS,
        default="needed",
        help="what becomes of images that have none (needed: left out)",
    )
    given = parser.parse_args(arguments)
    wanted = {"least_side": given.least_side, "captions": given.captions}
    try:
        summary = write_index(find_shards(place_of(Path(), given.folder)), given.index, **wanted)
    except CorpusRefused as refused:
        sys.stderr.write(f"{refused.sentence}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or given.folder} cannot be read or written: {error.strerror}.\n")
        return 1
    bare = f", {summary.uncaptioned} of them without a caption" if summary.uncaptioned else ""
    sys.stdout.write(f"{summary.images} images in {summary.shards} shards{bare}, {summary.problems} left out\n")
    sys.stdout.writelines(f"{problem}\n" for problem in read_problems(given.index)[:20])
    sys.stdout.write(f"{summary.content_hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
