"""The files of a store: safetensors, each named by the SHA-256 of its bytes, published whole, and held while they are used.

A file is held by a shared lock, which the kernel lets go of when the process ends, however it ends: `trimming` deletes
nothing that is held. Its tensors are mapped into memory, so that they stay readable even where somebody deletes it.
"""

import errno
import fcntl
import hashlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import safe_open
from safetensors.torch import save

from generation.engine.folders import hash_file
from generation.engine.safetensors_headers import read_header
from training.engine.run_files import sync_folder
from training.engine.store_index import ENDING


class ShardDamaged(ValueError):
    """A file, or an entry of it, that is not what it was when it was written."""


class ShardFile:
    """An open file of a store. Raises OSError where it is gone or about to go, `HeaderRefused` and `SafetensorError`
    where it is no whole file of tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, descriptor)
        self._descriptor: int | None = descriptor
        _hold(descriptor)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(path)
        self._infos = read_header(path)
        self._tensors = safe_open(path, framework="pt")

    def __contains__(self, key: str) -> bool:
        return key in self._infos

    def __getitem__(self, key: str) -> torch.Tensor:
        """The tensor, read through the page cache: a large set costs no process memory."""
        tensor: torch.Tensor = self._tensors.get_tensor(key)
        return tensor

    def check(self, key: str, digest: bytes | None) -> None:
        """Compare an entry with its digest or, where none is known, the whole file with its name. Raises `ShardDamaged`,
        or OSError where the disk does not give it."""
        if digest is None:
            if hash_file(self.path) != self.path.stem:
                raise ShardDamaged(self.path.name)
        elif self._digest(key) != digest:
            raise ShardDamaged(self.path.name)

    def digests(self) -> dict[str, bytes]:
        """Those of all entries, as they are read now."""
        return {key: self._digest(key) for key in self._infos}

    def touch(self) -> None:
        """Say that it was used now: what was used longest ago is deleted first."""
        os.utime(self.path if self._descriptor is None else self._descriptor)

    def release(self) -> None:
        """Hold it no longer; what is mapped stays readable."""
        self._descriptor = None
        self._close()

    def _digest(self, key: str) -> bytes:
        info = self._infos[key]
        if self._descriptor is None:
            content = self[key].reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            # Read, not mapped: of a page that the disk cannot give, a mapping would kill the process.
            content = os.pread(self._descriptor, info.end - info.begin, info.begin)
        return digest_of(key, info.dtype, info.shape, content)


def _hold(descriptor: int) -> None:
    """Nobody who trims waits for us, nor we for them: a file that is being deleted counts as gone (BlockingIOError)."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        # A file system without locks: whoever trims gets none there either, and deletes nothing.


def digest_of(key: str, dtype: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """SHA-256 of an entry: what it is called, how it lies, and its bytes."""
    digest = hashlib.sha256(f"{key} {dtype} {shape} ".encode())
    digest.update(content)
    return digest.digest()


def write_shard(folder: Path, tensors: Mapping[str, torch.Tensor]) -> ShardFile:
    """Publish a file of these tensors, held from before anybody can see it; the same tensors are the same file."""
    content = save({key: tensors[key].contiguous() for key in sorted(tensors)})
    name = f"{hashlib.sha256(content).hexdigest()}{ENDING}"
    temporary = folder / f".{name}.tmp-{uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            # Whoever tidies up sees that it is being written.
            _hold(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            shard = ShardFile(temporary)
        shard.path = temporary.replace(folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return shard
