"""Tensors by key: in files that all runs share, and in memory for what a run makes as it goes on."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from generation.engine.folders import hash_file
from training.engine.run_files import write_bytes

# What a store holds in memory, besides what a step needs at once.
HELD_BYTES = 256 * 2**20


class ShardStore:
    """Tensors by key in a folder of safetensors files, each named by the SHA-256 of its bytes, and in memory those that
    were given to hold."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._where: dict[str, Any] = {}
        self._held: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._held_bytes = 0
        for path in sorted(folder.glob("*.safetensors")):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self._where or key in self._held

    def __getitem__(self, key: str) -> torch.Tensor:
        """The tensor, not to be changed. Of the files' it is read through the page cache: a large set costs no process
        memory."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        return self._where[key].get_tensor(key)

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write one shard, atomically; the same tensors are the same file."""
        content = save({key: tensors[key].contiguous() for key in sorted(tensors)})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        write_bytes(path, content)
        self._open(path)

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

    def _open(self, path: Path) -> None:
        try:
            if hash_file(path) != path.stem:
                raise ValueError(path.name)
            shard = safe_open(path, framework="pt")
            self._where.update((key, shard) for key in shard.keys())  # noqa: SIM118 - a shard is no mapping.
        except (OSError, ValueError, SafetensorError):
            # Damaged: what it held is computed again.
            path.unlink(missing_ok=True)
