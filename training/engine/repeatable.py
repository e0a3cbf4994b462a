"""Passes that give the same bits each time.

On a GPU torch's fused attention adds up gradients in whatever order they come, unless operations that vary are an error and
not only warned of: https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html. So a pass is made
with them as an error, and only a network with an operation that torch has in no other way goes without.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WARN, ERROR = 1, 2
# torch says so with no type of its own. Its products of matrices vary where somebody has set cuBLAS a workspace that does.
VARIES = re.compile(r"(\S+) does not have a deterministic implementation|it uses (CuBLAS)")


@contextmanager
def repeating(*, strictly: bool) -> Iterator[None]:
    """Operations that vary are an error in this block, where the process warns of them (`prepare_torch`)."""
    before = torch.get_deterministic_debug_mode()
    if strictly and before == WARN:
        torch.set_deterministic_debug_mode(ERROR)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def operation_that_varies(error: RuntimeError) -> str | None:
    """The name of the operation that torch refused for this reason, or None where it was another."""
    found = VARIES.search(str(error))
    return (found[1] or found[2]) if found else None
