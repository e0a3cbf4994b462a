"""Latents and texts that were made as they were drawn, kept on disk for the next time somebody draws them.

They are written beside the steps, many to a file, by a thread of their own. Where there is no room for more (the bound, a
full disk, the files that a process may have open) the run goes on without keeping any more: what it kept stays, which
serves an epoch in random order better than making room by deleting what the same epoch will draw.
"""

import errno
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from training.engine.shard_files import ShardFile, write_shard
from training.engine.stores import ShardStore, most_files
from training.engine.trimming import make_room

# A file is written once so much waits for it, and no more than this waits while another is being written.
FILE_BYTES, FILE_ENTRIES = 64 * 2**20, 1024
WAITING_BYTES = 4 * FILE_BYTES
# What the head of a file says of an entry, at most.
HEAD_BYTES = 200

Entries = dict[str, torch.Tensor]
Written = tuple[ShardFile, dict[str, bytes]]


class Drawn:
    """Entries by key in a folder that takes no more than `most_bytes`; what others use of it longest ago is deleted for new
    ones, but nothing in use. So many bytes of the disk are left to others. Only one thread may use it."""

    def __init__(self, folder: Path, most_bytes: float, spare_bytes: int = 0) -> None:
        self.store = ShardStore(folder)
        self.most_bytes = most_bytes
        self.spare_bytes = spare_bytes
        self.is_full = False
        self._waiting: Entries = {}
        self._leaving: Entries = {}
        self._written: Future[Written | None] | None = None
        self._thread = ThreadPoolExecutor(1, "drawn latents")

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._leaving or key in self.store

    def __getitem__(self, key: str) -> torch.Tensor:
        for entries in (self._waiting, self._leaving):
            if key in entries:
                return entries[key]
        return self.store[key]

    def keep(self, entries: Mapping[str, torch.Tensor]) -> None:
        """Have them written, with others, sooner or later; or not, where there is no room."""
        self._collect(wait=False)
        if self.is_full:
            return
        self._waiting.update(entries)
        waiting = sum(each.nbytes for each in self._waiting.values())
        if self._written is None and (waiting >= FILE_BYTES or len(self._waiting) >= FILE_ENTRIES):
            self._write()
        elif waiting > WAITING_BYTES:
            # The disk is slower than the encoder: memory is worth more.
            self._waiting = {}

    def close(self) -> None:
        """Write what waits, and hold nothing any more."""
        self._collect(wait=True)
        if self._waiting and not self.is_full:
            self._write()
            self._collect(wait=True)
        self._waiting = {}
        self._thread.shutdown()
        self.store.close()

    def _write(self) -> None:
        if self.store.open_files >= most_files():
            self._stop("as many files as a process may hold are open")
            return
        self._leaving, self._waiting = self._waiting, {}
        self._written = self._thread.submit(self._write_file, self._leaving)

    def _write_file(self, entries: Entries) -> Written | None:
        needed = sum(each.nbytes + HEAD_BYTES for each in entries.values())
        if needed > self.most_bytes or not make_room(self.store.folder, self.most_bytes - needed):
            return None
        if shutil.disk_usage(self.store.folder).free < needed + self.spare_bytes:
            raise OSError(errno.ENOSPC, "the disk has no more room than the checkpoints and the result take")
        file = write_shard(self.store.folder, entries)
        return file, file.digests()

    def _collect(self, *, wait: bool) -> None:
        """Take what was written into the store, if it is or where it is waited for."""
        if self._written is None or not (wait or self._written.done()):
            return
        future, self._written, self._leaving = self._written, None, {}
        try:
            written = future.result()
        except OSError as error:
            self._stop(error.strerror or "the disk refuses them")
            return
        if written is None:
            self._stop("there is no room within the bound")
        else:
            self.store.adopt(*written)

    def _stop(self, why: str) -> None:
        sys.stderr.write(f"From here on latents that are made as they are drawn are not kept on disk: {why}.\n")
        self.is_full, self._waiting = True, {}
