"""Weights in shards: each process of a group keeps its part of every trained network's tensor, for models that no single
GPU holds (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3; torch's `fully_shard`).

A block's weights are put together while it computes, and let go again. Gradients, the optimizer's moments and the moving
average are kept in the same shards. Whoever calls a function here that exchanges anything says so: all processes of the
group must call it, in the same order.
"""

from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_network(network: Any, mesh: Any) -> None:
    """Leave of a diffusers network's weights only this process's shards, on the mesh's device, in place.

    Every block is a unit of its own, so that one at a time is whole. All processes must hold the same weights;
    nothing is exchanged.
    """
    # Inner ones first: an outer one then takes what they left.
    for module in reversed(list(network.modules())):
        if type(module).__name__ in network._no_split_modules:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # Let go after each pass too: the network is also asked without a way back, with other weights put into its shards.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part, in the same memory; of what is not in shards, all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor put together from its shards. Exchanges them, if it is in shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every process has, in the shards and on the device of `like`, which has its shape. One that
    is in shards, or belongs in none, comes back as it is."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    placed = tensor.to(like.device)
    # No source: each process takes its part of its own tensor, and nothing is exchanged.
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
