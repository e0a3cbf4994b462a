"""Where shards lie: a folder that is mounted on this machine, or one in an S3 bucket. The rest of the engine asks here."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from training.engine import buckets, shards
from training.engine.buckets import BucketPath, Patience
from training.engine.shards import CorpusRefused, Seal, Status, Tell

Place = Path | BucketPath


def place_of(base: Path, named: str) -> Place:
    """A folder of shards as run.json names it: an address in S3, or a path, which may begin at `base`. Raises CorpusRefused."""
    if not buckets.is_address(named):
        return base / named
    try:
        return BucketPath.parse(named)
    except ValueError as error:
        raise CorpusRefused(str(error)) from None


def find_shards(folder: Place, patience: Patience | None = None) -> Sequence[Place]:
    """The .tar files in a folder, not in those below it, by name; `patience` is with a bucket. Raises CorpusRefused where there
    is none, or where one is a link or no plain file."""
    if isinstance(folder, BucketPath):
        found: Sequence[Place] = buckets.list_folder(folder, patience=patience)[0]
    else:
        if folder.is_symlink() or not folder.is_dir():
            raise CorpusRefused(f"{folder.name} is no folder.")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar")
    if not found:
        raise CorpusRefused(
            f"The folder {folder.name} has no .tar file. Shards are plain tar files, not compressed ones."
        )
    for path in found:
        if isinstance(path, Path):
            with shards.open_shard(path):
                pass
    return found


def status_of(shard: Place) -> Status:
    """Size and time of last change. Raises CorpusRefused or OSError where it is missing."""
    if isinstance(shard, BucketPath):
        return buckets.status_of(shard)
    found = shard.stat()
    return Status(found.st_size, found.st_mtime_ns)


def present(listed: Sequence[Place]) -> Sequence[Place]:
    """The same shards of one folder, so that `status_of` asks nobody for each of those in a bucket."""
    far = [shard for shard in listed if isinstance(shard, BucketPath)]
    return buckets.with_status(far) if far else listed


@contextmanager
def sealed_shard(shard: Place, work: Path, tell: Tell = lambda count: None) -> Iterator[tuple[BinaryIO, Seal]]:
    """A shard as an open file with its hash. One in a bucket is copied to a nameless file in the folder `work` for the time
    of the block. Raises CorpusRefused, at the end too, where it changed meanwhile."""
    if isinstance(shard, BucketPath):
        with _copied(shard, work, tell) as (copy, sealed):
            yield copy, sealed
        return
    with shards.open_shard(shard) as file:
        sealed = shards.seal(file, tell)
        yield file, sealed
        if shards.status_of(file) != Status(sealed.size, sealed.mtime_ns):
            raise CorpusRefused(f"The shard {shard.name} changed while it was read.")


@contextmanager
def _copied(shard: BucketPath, work: Path, tell: Tell) -> Iterator[tuple[BinaryIO, Seal]]:
    status, digest = buckets.status_of(shard), hashlib.sha256()
    with tempfile.TemporaryFile(dir=work) as copy:
        copied = 0
        for chunk in buckets.read_chunks(shard, tell):
            digest.update(chunk)
            copy.write(chunk)
            copied += len(chunk)
            if copied > status.size:
                break
        if copied != status.size:
            raise CorpusRefused(f"The shard {shard.name} changed while it was read.")
        # Parts are read by position, beside this file's own buffer.
        copy.flush()
        yield copy, Seal(status.size, status.mtime_ns, digest.hexdigest())


def check_seal(shard: Place, sealed: Seal, tell: Tell = lambda count: None) -> None:
    """Raise CorpusRefused where a shard is not what was sealed. One of the same size and time is taken for the same: each
    image's own hash is checked when it is read. Of another time, as after copying, all bytes are hashed again."""
    if isinstance(shard, BucketPath):
        same = _is_same(sealed, buckets.status_of(shard), lambda: _hash(shard, tell))
    else:
        with shards.open_shard(shard) as file:
            same = _is_same(sealed, shards.status_of(file), lambda: shards.seal(file, tell).sha256)
    if not same:
        raise CorpusRefused(
            f"The shard {shard.name} changed since its corpus was indexed. Put the old file back, or index it anew."
        )


def _is_same(sealed: Seal, now: Status, hash_now: Callable[[], str]) -> bool:
    if now.size != sealed.size:
        return False
    return now.mtime_ns == sealed.mtime_ns or hash_now() == sealed.sha256


def _hash(shard: BucketPath, tell: Tell) -> str:
    digest = hashlib.sha256()
    for chunk in buckets.read_chunks(shard, tell):
        digest.update(chunk)
    return digest.hexdigest()


def read_bytes(shard: Place, offset: int, size: int) -> bytes:
    """`size` bytes of a shard from `offset`, fewer where it ends before. Raises CorpusRefused."""
    if isinstance(shard, BucketPath):
        return buckets.read_range(shard, offset, size)
    return shards.read_bytes(shard, offset, size)
