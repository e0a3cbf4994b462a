"""The trainer as a module that brings all of its imports along: for a process that forks trainers (`jobs.warm`)."""

import os
from contextlib import suppress
from importlib import import_module

# Asking whether there is a GPU by way of the driver would open it, and no fork could use it then.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

from training.engine.__main__ import main

__all__ = ["main"]

import_module("training.engine.trainer")
with suppress(ImportError):
    # Where it is installed; each run writes its curves with it.
    import_module("torch.utils.tensorboard")
