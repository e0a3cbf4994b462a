"""Checkpoints are written while the next steps train.

At the end of a step a checkpoint is copied into the machine's memory; a thread then writes, syncs, hashes and publishes the
copy. One is under way at most: the next waits for it. What the thread met, the training thread raises where it asks.
"""

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace

import torch

from training.engine.checkpoints import Checkpoint, Tensors
from training.engine.memory import free_memory, taken_for_a_while

# Smaller tensors are not worth a page of their own that the system must not move.
LEAST_PINNED = 2**20


class NoRoom(Exception):
    """The machine's memory does not hold a copy: `needed` of `free` bytes."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(needed, free)
        self.needed, self.free = needed, free


class Writer:
    """The thread that writes a run's checkpoints."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # What a step takes beyond what is held between two of them: left free for the next.
        self._step_bytes: int | None = None
        # torch keeps pinned memory for the next time.
        self._pinned_bytes = 0

    def copy(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint in memory of its own, which the next steps do not change. Raises `NoRoom` where the machine
        has no memory for that, with what a step takes besides."""
        parts = [checkpoint.weights, checkpoint.optimizer, checkpoint.ema or {}]
        tensors = [each for part in parts for each in part.values()]
        pinned = sum(_pinned_bytes(each) for each in tensors if _is_pinned(each))
        unpinned = sum(each.nbytes for each in tensors if not _is_pinned(each))
        if self._step_bytes is None:
            self._step_bytes = taken_for_a_while()
        needed = unpinned + max(0, pinned - self._pinned_bytes) + self._step_bytes
        if needed > (free := free_memory()):
            raise NoRoom(needed, free)
        try:
            weights, optimizer, ema = (_copied(part) for part in parts)
        except (MemoryError, RuntimeError) as error:
            # The system gives less than it says, or lets less of it be pinned.
            raise NoRoom(needed, free) from error
        self._pinned_bytes = max(pinned, self._pinned_bytes)
        if any(each.is_cuda for each in tensors):
            torch.cuda.synchronize()
        return replace(checkpoint, weights=weights, optimizer=optimizer, ema=None if checkpoint.ema is None else ema)

    def begin(self, write: Callable[[], None]) -> None:
        """Have it written from here on. Waits for the one before, and raises what that met."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise what the thread met, without waiting for it."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Return once nothing is under way. Raises what the thread met."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def close(self) -> None:
        """Wait too, where the run ends for another reason: what the thread met only goes to the log."""
        try:
            self.wait()
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error


def _copied(tensors: Tensors) -> Tensors:
    """The tensors on the CPU; from a GPU under way until it is synchronised."""
    copies = {}
    for name, tensor in tensors.items():
        # Laid out plainly, as files have them, however the steps like them.
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=_is_pinned(tensor))
        copies[name] = copy.copy_(tensor.detach(), non_blocking=True)
    return copies


def _is_pinned(tensor: torch.Tensor) -> bool:
    """Whether its copy lies in memory that a GPU writes to by itself, at the speed of the bus."""
    return tensor.is_cuda and tensor.nbytes >= LEAST_PINNED


def _pinned_bytes(tensor: torch.Tensor) -> int:
    """What torch takes of such memory for a tensor: the next power of two."""
    return 1 << max(0, tensor.nbytes - 1).bit_length()
