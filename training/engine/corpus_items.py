"""The images of a corpus as training draws them: read from the index one by one, so that memory does not grow with them."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.engine.corpus_index import connect, open_index, shards_of
from training.engine.lazy import LazySequence
from training.engine.manifests import Item
from training.engine.places import Place
from training.engine.shards import CorpusRefused

# A step asks for each of its images a few times.
KEPT_ITEMS = 4096

_COLUMNS = "shard, member, start, size, sha256, caption, width, height"


class CorpusItems(LazySequence[Item]):
    """The items of an index in its order, those drawn last kept in memory; `prompt_free` gives all the empty caption.

    Each thread and each process has a connection of its own, also after a fork; pickled, only the paths travel. Raises
    CorpusRefused where the index cannot be read.
    """

    def __init__(self, index: Path, folder: Place, prompt_free: bool = False) -> None:
        self.path, self.folder, self.prompt_free = index, folder, prompt_free
        with open_index(index) as database:
            self._shards = {number: folder / name for number, name, *_ in shards_of(database)}
            # Numbers have no gaps, and the last one is found without looking at the others.
            (last,) = database.execute("SELECT max(number) FROM images").fetchone()
        self._here = threading.local()
        super().__init__(last or 0, lru_cache(maxsize=KEPT_ITEMS)(self._read))

    def __reduce__(self) -> tuple[Any, ...]:
        return CorpusItems, (self.path, self.folder, self.prompt_free)

    def __iter__(self) -> Iterator[Item]:
        """All of them, in one pass over the index."""
        with open_index(self.path) as database:
            for row in database.execute(f"SELECT {_COLUMNS} FROM images ORDER BY number"):  # noqa: S608 - our own names.
                yield self._item(*row)

    def hashes(self) -> Iterator[str]:
        """The sha256 of each, without the rest of the row."""
        with open_index(self.path) as database:
            for (sha256,) in database.execute("SELECT sha256 FROM images ORDER BY number"):
                yield sha256

    def _read(self, number: int) -> Item:
        try:
            statement = f"SELECT {_COLUMNS} FROM images WHERE number = ?"  # noqa: S608 - our own names.
            row = self._database().execute(statement, (number + 1,)).fetchone()
        except sqlite3.Error:
            raise CorpusRefused(f"The corpus index {self.path.name} cannot be read.") from None
        if row is None:
            raise CorpusRefused(f"The corpus index {self.path.name} has no image {number}.")
        return self._item(*row)

    def _item(
        self, shard: int, member: str, start: int, size: int, sha256: str, caption: str, width: int, height: int
    ) -> Item:
        place = self._shards[shard]
        caption = "" if self.prompt_free else caption
        return Item(place, caption, sha256, member=member, offset=start, size=size, width=width, height=height)

    def _database(self) -> sqlite3.Connection:
        here = self._here
        # A connection must not be used beyond a fork.
        if getattr(here, "process", None) != os.getpid():
            here.reader, here.process = _Reader(self.path), os.getpid()
        return here.reader.connection


class _Reader:
    """A connection that is closed with its thread."""

    def __init__(self, index: Path) -> None:
        # Another thread may be the one that closes it.
        self.connection = connect(index, check_same_thread=False)
        weakref.finalize(self, self.connection.close)
