"""The processes that train one run together: started by `accelerate launch` or `torchrun`, or one alone.

Each takes every n-th example of a step, and the gradients are summed: the step is the same as one process makes of it, but
for the order of a sum. The first process alone writes files; all of them must see the run's folder.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from training.engine.recipe import RunRefused

PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Group:
    """This process's place among `size` of them; `rank` 0 is the main one."""

    rank: int = 0
    size: int = 1
    # Where the weights lie in shards: torch's mesh of all processes.
    mesh: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do the block before the others: they find what it wrote."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def wait(self) -> None:
        """Return once every process is here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, wish: bool) -> bool:
        """What the main process says; the others' word does not count."""
        return bool(self.hear_main(wish))

    def hear_main(self, value: Any) -> Any:
        """The main process's value, for all of them."""
        if self.size == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    @property
    def is_sharded(self) -> bool:
        """Whether each process keeps a part of the weights, so that none can ask the network anything alone."""
        return self.mesh is not None

    def any(self, wish: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather(wish))

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, for all of them."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def sum_gradients(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes, in one message; a missing one counts as zero."""
        if self.size == 1:
            return
        for each in parameters.values():
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        gradients = [each.grad for each in parameters.values() if each.grad is not None]
        flat = torch.cat([each.reshape(-1) for each in gradients])
        distributed.all_reduce(flat)
        start = 0
        for each in gradients:
            each.copy_(flat[start : start + each.numel()].view_as(each))
            start += each.numel()


def own_gpu(local_rank: int, count: int) -> int:
    """The number of the GPU of this process of its machine's. Raises `RunRefused` where there are fewer GPUs than processes."""
    if local_rank >= count:
        raise RunRefused(
            f"Each process of a run trains on a GPU of its own, and this machine has {count}: start no more processes."
        )
    return local_rank


@contextmanager
def join_group(device: str, *, sharded: bool = False) -> Iterator[Group]:
    """The group that the launcher's environment names (WORLD_SIZE, RANK, LOCAL_RANK), or a process alone.

    On GPUs each process takes the one of its local rank. `device` and `sharded` are as in run.json.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(own_gpu(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()))
    # The others wait while the main process alone encodes a dataset, validates or draws: that may take hours.
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        mesh = init_device_mesh("cuda" if on_gpu else "cpu", (size,)) if sharded else None
        yield Group(distributed.get_rank(), size, mesh)
    finally:
        distributed.destroy_process_group()
