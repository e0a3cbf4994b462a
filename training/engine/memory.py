"""Memory: what a run holds, and what the machine has left for it."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

# Where the kernel shows what a container may hold, in its second and its first version: (folder, the file of what it may
# hold, that of what it holds, what the latter counts though it goes when asked for).
LIMITS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# What errors of no type of their own say, in small letters: torch's allocator of a CPU by the way it asked, CUDA and its
# libraries, and oneDNN, which says no more than what it could not make.
SENTENCES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "could not create a primitive",
    "could not create a memory object",
)


class ShortOfMemory(MemoryError):
    """Memory does not do even for the smallest part that the work can be taken in; `sentence` says of which work."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def is_out_of_memory(error: BaseException) -> bool:
    """torch has an exception of its own for what it asks of a GPU, and sentences for the rest."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return any(sentence in said for sentence in SENTENCES)


def peak_memory(device: torch.device) -> int:
    """The most memory in bytes that the run has held so far: of the GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes, but bytes on a Mac.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def taken_for_a_while() -> int:
    """Bytes of the machine's memory that this process has held at its peak and holds no longer."""
    return max(0, peak_memory(torch.device("cpu")) - int(psutil.Process().memory_info().rss))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be taken without swapping: of the machine, or of the container where that allows less.

    `root` is the folder that /proc and /sys lie in.
    """
    return min([int(psutil.virtual_memory().available), *_left_in_containers(root)])


def _left_in_containers(root: Path) -> Iterator[int]:
    for folder, most, held, reclaimable in LIMITS:
        for place in _places(root, root / folder):
            try:
                left = int((place / most).read_text()) - int((place / held).read_text())
                counts = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
                yield max(0, left + int(counts.get(reclaimable, 0)))
            except (OSError, ValueError):
                continue  # No limit there ("max"), or not this version.


def _places(root: Path, top: Path) -> Iterator[Path]:
    """The groups that this process is in, from its own to the outermost: each may have a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    named = {fields[2].strip("/") for line in lines if len(fields := line.split(":", 2)) == 3}
    found = {top}
    for name in named:
        place = top / name
        found.update(each for each in (place, *place.parents) if each.is_relative_to(top))
    yield from sorted(found)
