"""Keeping the cache that all runs share within a bound: what was used longest ago is deleted first, a whole file at a time.

A file that a process uses is held by a lock (see `shard_files`) and never deleted; the lock goes with the process, however
that ends. Whoever finds a file gone makes what it held again. This module imports no torch.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from training.engine.run_files import write_json
from training.engine.store_index import is_shard

STORES = ("latents", "texts", "drawn")
# Where damaged files are moved to, for whoever wants to know why.
QUARANTINE = "quarantine"
RECORD = "trimmed.json"
# A file that has not been published for so long was left by a process that was killed.
LEFT_OVER_SECONDS = 3600.0


@dataclass(frozen=True)
class Trimmed:
    """What trimming a cache did: bytes and files that were deleted, bytes that are left, and of these the ones above the
    bound that are in use. `at` is in seconds since the epoch."""

    deleted_files: int
    deleted_bytes: int
    left_bytes: int
    held_bytes: int
    at: float


@dataclass(frozen=True, order=True)
class _File:
    """In the order of deletion: damaged ones first, then what was used longest ago."""

    is_wanted: bool
    used: int
    path: Path
    size: int


def trim_cache(folder: Path, most_bytes: float) -> Trimmed:
    """Delete files of the stores in a cache folder until they take no more than `most_bytes`, or the rest is in use."""
    _clear_leftovers(folder)
    trimmed = _trim([each for store in STORES for each in _files(folder / store)], _index_bytes(folder), most_bytes)
    if folder.is_dir():
        write_json(folder / RECORD, asdict(trimmed), sync=False)
    return trimmed


def make_room(store: Path, most_bytes: float) -> bool:
    """Delete files of one store until they take no more than `most_bytes`; whether they do."""
    return _trim(list(_files(store)), 0, most_bytes).left_bytes <= most_bytes


def last_trimmed(folder: Path) -> Trimmed | None:
    """What the last trimming did, None where there was none."""
    try:
        return Trimmed(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def cache_bytes(folder: Path) -> int:
    """What a cache's files take on disk now."""
    return sum(each.size for store in STORES for each in _files(folder / store)) + _index_bytes(folder)


def _trim(files: list[_File], others: int, most_bytes: float) -> Trimmed:
    left = others + sum(each.size for each in files)
    deleted = deleted_bytes = held = 0
    for each in sorted(files):
        if left <= most_bytes:
            break
        if _delete(each):
            deleted, deleted_bytes, left = deleted + 1, deleted_bytes + each.size, left - each.size
        else:
            held += each.size
    return Trimmed(deleted, deleted_bytes, left, held, time.time())


def _files(store: Path) -> Iterator[_File]:
    for place, is_wanted in ((store / QUARANTINE, False), (store, True)):
        for path in _listed(place):
            with suppress(FileNotFoundError):
                if is_shard(path.name):
                    status = path.stat()
                    yield _File(is_wanted, status.st_mtime_ns, path, status.st_size)


def _index_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _listed(folder) if path.suffix == ".sqlite")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _delete(file: _File) -> bool:
    """Delete a file unless somebody uses it, or has since it was listed."""
    try:
        descriptor = os.open(file.path, os.O_RDWR)
    except FileNotFoundError:
        return True  # Another trimmed it.
    except PermissionError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever opens it while we hold it takes it for gone already.
        if os.fstat(descriptor).st_mtime_ns != file.used:
            return False
        file.path.unlink(missing_ok=True)
    except (BlockingIOError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _clear_leftovers(folder: Path) -> None:
    """Delete what killed processes were writing; what is being written is held."""
    before = time.time_ns() - int(LEFT_OVER_SECONDS * 1e9)
    for store in STORES:
        for path in _listed(folder / store):
            with suppress(FileNotFoundError):
                status = path.stat()
                if ".tmp-" in path.name and status.st_mtime_ns < before:
                    _delete(_File(False, status.st_mtime_ns, path, status.st_size))
