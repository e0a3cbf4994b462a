"""Imports all that a trainer needs, for a process that forks trainers: importing it takes many seconds."""

import os
from contextlib import suppress
from importlib import import_module

from generation.engine.waiting import spin_where_idle

# Asking whether there is a GPU by way of the driver would open it, and no fork could use it then.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

spin_where_idle()

import torch  # noqa: E402 (It reads how its threads wait when it comes.)

for name in ("training.engine.__main__", "training.engine.trainer"):
    import_module(name)
with suppress(ImportError):
    # Where it is installed; each run writes its curves with it.
    import_module("torch.utils.tensorboard")

# A fork can no longer ask where the driver was opened after all.
GPUS = torch.cuda.device_count()


def is_spoiled() -> bool:
    """Whether this fork could not use the GPUs that are there, since the process that it comes from has opened them."""
    return GPUS > 0 and torch.cuda._is_in_bad_fork()
