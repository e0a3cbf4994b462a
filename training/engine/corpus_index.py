"""The index of a corpus, as training and pages read it: opened without locks, row by row, so that memory is that of a few.

`training.engine.corpora` writes it and says what it is. Rows are counted from 0 here, in the order of the index.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from training.engine.manifests import Item
from training.engine.places import Place, check_seal, present
from training.engine.shards import CorpusRefused, Seal

SCHEMA = 1

# report(done, total) in bytes; may raise to stop.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What an index holds; `problems` counts what was left out, `uncaptioned` the images that have the empty caption."""

    content_hash: str
    images: int
    shards: int
    problems: int
    uncaptioned: int = 0


def read_summary(index: Path) -> Summary:
    """What an index says of itself. Raises CorpusRefused where it cannot be read."""
    with open_index(index) as database:
        facts = dict(database.execute("SELECT name, value FROM facts").fetchall())
        (images,) = database.execute("SELECT count(*) FROM images").fetchone()
        (shards,) = database.execute("SELECT count(*) FROM shards").fetchone()
    # Indexes of the time when every image had a caption do not count those without.
    return Summary(facts["content_hash"], images, shards, int(facts["problems"]), int(facts.get("uncaptioned", 0)))


def read_problems(index: Path, most: int = -1) -> list[str]:
    """The first problems, or `most` of them, as sentences: "0007.png in a.tar has no caption beside it."."""
    with open_index(index) as database:
        rows = database.execute("SELECT member, shard, why FROM problems ORDER BY number LIMIT ?", (most,)).fetchall()
    return [f"{member} in {shard} {why}." for member, shard, why in rows]


def count_sizes(index: Path) -> dict[tuple[int, int], int]:
    """How many images have which width and height, in pixels, the narrowest first."""
    with open_index(index) as database:
        rows = database.execute("SELECT width, height, count(*) FROM images GROUP BY 1, 2 ORDER BY 1, 2")
        return {(width, height): count for width, height, count in rows}


def read_items(index: Path, folder: Place, numbers: Sequence[int]) -> list[Item]:
    """The images of these numbers. Raises CorpusRefused where the index has no such image."""
    with open_index(index) as database:
        return [_item(database, folder, number, index) for number in numbers]


def _item(database: sqlite3.Connection, folder: Place, number: int, index: Path) -> Item:
    row = database.execute(
        "SELECT shards.name, images.sha256, caption, member, start, images.size, width, height FROM images "
        "JOIN shards ON shards.number = images.shard WHERE images.number = ?",
        (number + 1,),
    ).fetchone()
    if row is None:
        raise CorpusRefused(f"The corpus index {index.name} has no image {number}.")
    name, sha256, caption, member, start, size, width, height = row
    place = {"member": member, "offset": start, "size": size}
    return Item(folder / name, caption, sha256, **place, width=width, height=height)


def check_index(index: Path, content_hash: str) -> None:
    """Raise CorpusRefused where the rows of the index are not those of the hash."""
    with open_index(index) as database:
        found = hash_content(database)
    if found != content_hash:
        raise CorpusRefused(f"The corpus index {index.name} is not the one that the recipe names: its hash differs.")


def check_shards(
    index: Path, folder: Place, report: Report = lambda done, total: None, *, every_byte: bool = False
) -> None:
    """Raise CorpusRefused where a shard in `folder` is missing or changed. Those of the same size and time are taken for
    the same, unless `every_byte` is to be hashed. `report(done, total)` counts bytes of shards and may raise to stop."""
    with open_index(index) as database:
        shards = list(shards_of(database))
    total, done = sum(size for _, _, size, _, _ in shards), 0
    places = present([folder / name for _, name, *_ in shards])
    for place, (_, _, size, mtime_ns, sha256) in zip(places, shards, strict=True):
        # No file is of this time.
        sealed = Seal(size, -1 if every_byte else mtime_ns, sha256)
        check_seal(place, sealed, _counter(done, total, report))
        done += size
        report(done, total)


def _counter(before: int, total: int, report: Report) -> Callable[[int], None]:
    done = before

    def tell(count: int) -> None:
        nonlocal done
        done += count
        report(min(done, total), total)

    return tell


@contextmanager
def open_index(index: Path) -> Iterator[sqlite3.Connection]:
    """A connection to read from. Raises CorpusRefused where the file is no index, also from within the block."""
    try:
        with closing(connect(index)) as database:
            schema = database.execute("SELECT value FROM facts WHERE name = 'schema'").fetchone()
            if schema != (str(SCHEMA),):
                raise CorpusRefused(f"The corpus index {index.name} is of another schema.")
            yield database
    except sqlite3.Error:
        raise CorpusRefused(f"The corpus index {index.name} cannot be read.") from None


def connect(index: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """An unchecked connection to read from, to be closed. Raises sqlite3.Error."""
    # Nobody writes to it: no locks, no journal.
    address = f"file:{quote(str(index.resolve()))}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, check_same_thread=check_same_thread)


def shards_of(database: sqlite3.Connection) -> Iterator[Any]:
    """(number, name, size, mtime_ns, sha256) of each shard."""
    return database.execute("SELECT number, name, size, mtime_ns, sha256 FROM shards ORDER BY number")


def images_of(database: sqlite3.Connection) -> Iterator[Any]:
    """(shard, member, start, size, sha256, caption, width, height) of each image."""
    return database.execute(
        "SELECT shard, member, start, size, sha256, caption, width, height FROM images ORDER BY number"
    )


def hash_content(database: sqlite3.Connection) -> str:
    """The content hash: shards and images by their names and bytes. Times are no part of it: a copy of a corpus is the
    same corpus."""
    named = [[name, size, sha256] for _, name, size, _, sha256 in shards_of(database)]
    digest = hashlib.sha256(json.dumps({"schema": SCHEMA, "shards": named}).encode())
    for row in images_of(database):
        digest.update(f"\n{json.dumps(row)}".encode())
    return digest.hexdigest()
