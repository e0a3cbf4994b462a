"""Indexes of corpora that have no shards: as large as a test wants them, at no image's cost."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from training.engine import corpora
from training.engine.corpus_index import SCHEMA, hash_content

SIZES = [(48, 36), (36, 48), (64, 64)]


def write_large_index(index: Path, images: int, *, copies_every: int = 0, shard_of: int = 10_000) -> str:
    """Write an index of so many images and return its content hash. With `copies_every` each so-and-so-manieth image has the bytes of
    the one before it."""
    with closing(sqlite3.connect(index)) as database, database:
        database.executescript(corpora._TABLES)
        shards = range(-(-images // shard_of))
        database.executemany(
            "INSERT INTO shards VALUES (?, ?, ?, 0, ?)", ((i, f"{i:05}.tar", 10**9, f"{i:064x}") for i in shards)
        )
        database.executemany(
            "INSERT INTO images (shard, member, start, size, sha256, caption, width, height) VALUES (?,?,?,?,?,?,?,?)",
            (
                (
                    number // shard_of,
                    f"{number:08}.png",
                    512 * number,
                    400,
                    _digest(number - 1 if copies_every and number % copies_every == copies_every - 1 else number),
                    f"a picture of the subject number {number}, seen from the side, on a plain ground",
                    *SIZES[number % len(SIZES)],
                )
                for number in range(images)
            ),
        )
        content_hash = hash_content(database)
        facts = {"schema": SCHEMA, "least_side": 1, "content_hash": content_hash, "problems": 0}
        database.executemany("INSERT INTO facts VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()])
    return content_hash


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
