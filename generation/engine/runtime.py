"""Process-wide settings of everything that draws or trains: quiet, and repeatable on one kind of machine."""

import os

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from generation.engine.waiting import heed_machine

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def prepare_torch() -> None:
    """Make drawing and training repeatable on this machine, and keep bars and warnings of the libraries quiet."""
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    torch.set_num_threads(choose_threads())
    heed_machine(torch.get_num_threads())
    # cuBLAS repeats itself only with a workspace of its own; it reads this when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With that, torch fills all new memory with NaN, before it is written, so that a read of it would show. Nothing here
    # reads what it has not written, and on a CPU the filling is a good part of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False


def choose_threads() -> int:
    """The CPU threads of one drawing or training process: OMP_NUM_THREADS where it is set, else all cores but one,
    which stays free for the people who rate meanwhile."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, len(os.sched_getaffinity(0)) - 1)


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the GPU where there is one. Raises `ValueError` if a named device is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("This machine has no usable GPU.")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is float32, which draws the same everywhere; half precision is chosen by name, and on a GPU only."""
    dtype = torch.float32 if name == "auto" else DTYPES[name]
    if device.type == "cpu" and dtype is torch.float16:
        return torch.float32
    return dtype
