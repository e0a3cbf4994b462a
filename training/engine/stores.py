"""Tensors by key: in files that all runs share, and in memory for what a run makes as it goes on."""

import errno
import resource
import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError

from generation.engine.safetensors_headers import HeaderRefused
from training.engine.shard_files import ShardDamaged, ShardFile, write_shard
from training.engine.store_index import StoreIndex
from training.engine.trimming import QUARANTINE

# What a store holds in memory, besides what a step needs at once.
HELD_BYTES = 256 * 2**20


class ShardStore:
    """Tensors by key in a folder of safetensors files, each named by the SHA-256 of its bytes, and in memory those that
    were given to hold.

    Of the files only those are opened that have what is asked for; an entry is compared with its digest before it is first
    said to be there. `damaged` are the names of the files that were set aside. Only one thread may use it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.damaged: list[str] = []
        self._index = StoreIndex(folder)
        self._files: dict[str, ShardFile] = {}
        self._where: dict[str, ShardFile] = {}
        self._held: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._held_bytes = 0
        for name in self._index.unreadable:
            self._set_aside(name)

    def __len__(self) -> int:
        """How many entries the files have, of all runs."""
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        """Whether it is there, and what it was when it was written."""
        return key in self._where or key in self._held or self._find(key)

    def __getitem__(self, key: str) -> torch.Tensor:
        """The tensor, not to be changed, of a key that is there."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if key not in self:
            raise KeyError(key)
        return self._where[key][key]

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write one file, atomically."""
        file = write_shard(self.folder, tensors)
        self.adopt(file, file.digests())

    def adopt(self, file: ShardFile, digests: Mapping[str, bytes]) -> None:
        """Take a file that was written to the folder, with the digests of all its entries."""
        self._index.add(file.path.name, digests)
        self._keep(file)
        self._where.update(dict.fromkeys(digests, file))

    @property
    def open_files(self) -> int:
        return len(self._files)

    def close(self) -> None:
        """Hold no file any more: they may be deleted from here on."""
        for file in self._files.values():
            with suppress(OSError):
                file.touch()
            file.release()

    def hold(self, tensors: Mapping[str, torch.Tensor], *, besides: Collection[str] = ()) -> None:
        """Keep them in memory and in no file. What was asked for longest ago is dropped where that gets too much, but
        nothing of `besides`."""
        for key, tensor in tensors.items():
            self._held_bytes += tensor.nbytes - (self._held[key].nbytes if key in self._held else 0)
            self._held[key] = tensor
        for key in list(self._held):
            if self._held_bytes <= HELD_BYTES:
                return
            if key not in besides and key not in tensors:
                self._held_bytes -= self._held.pop(key).nbytes

    def _find(self, key: str) -> bool:
        """Look into the files, and set aside what is damaged."""
        found = self._index.find(key)
        if found is None:
            return False
        name, digest = found
        try:
            file = self._files.get(name) or self._keep(ShardFile(self.folder / name))
            if key not in file:
                return False
            file.check(key, digest)
            if digest is None:
                self._index.add(name, file.digests())
        except (FileNotFoundError, BlockingIOError):
            return False  # Trimmed since.
        except (OSError, HeaderRefused, SafetensorError, ShardDamaged) as error:
            if isinstance(error, OSError) and error.errno != errno.EIO:
                raise  # Says nothing of the file itself.
            self._set_aside(name)
            return False
        self._where[key] = file
        return True

    def _keep(self, file: ShardFile) -> ShardFile:
        self._files[file.path.name] = file
        with suppress(OSError):  # A cache that may only be read is one that nobody trims.
            file.touch()
        if len(self._files) > most_files():
            # More than may be open at once: it may be deleted from here on, and stays readable for this run.
            file.release()
        return file

    def _set_aside(self, name: str) -> None:
        """What a damaged file held is made again; what of it was found whole stays readable for this run."""
        path = self.folder / name
        sys.stderr.write(f"The file {path} was damaged and is set aside; what it held is made again.\n")
        self.damaged.append(name)
        self._files.pop(name, None)
        self._index.drop(name)
        with suppress(OSError):
            (self.folder / QUARANTINE).mkdir(exist_ok=True)
            path.replace(self.folder / QUARANTINE / name)


def most_files() -> int:
    """How many files a store holds: a run has several stores, and opens other files too."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
