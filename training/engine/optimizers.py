"""The optimizers that a run may choose, and what each remembers of a weight. Imports no torch until one is made.

AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) keeps two moments of every weight. In 8 bits (Dettmers et al. 2021, arXiv
2110.02861; bitsandbytes) each block of 256 numbers shares a scale, and the moments of small tensors stay float32. Adafactor
(Shazeer & Stern 2018, arXiv 1804.04235, with its update clipping and relative step sizes, and no first moment) keeps of
each matrix the second moments of its rows and columns alone; of a convolution, those of each kernel's rows and columns.
Its learning rate counts in shares of a weight's own size.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from training.engine.recipe import RunRefused, RunSettings

FLOAT = 4
# bitsandbytes' own: numbers that share a scale, and the fewest numbers of a tensor whose moments become 8 bits.
BLOCK, LEAST_IN_8_BITS = 256, 4096


def make_optimizer(parameters: Iterable[Any], settings: RunSettings) -> Any:
    """The optimizer of the settings for torch's parameters. All of its state are tensors or whole numbers, which a
    checkpoint keeps. Raises `RunRefused` where it needs a package that is not installed."""
    import torch

    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=rate, weight_decay=decay, foreach=False)
    if settings.optimizer == "adamw8bit":
        # Hidden by `generation.engine` from the libraries that would import it for nothing.
        if sys.modules.get("bitsandbytes", sys) is None:
            del sys.modules["bitsandbytes"]
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise RunRefused(
                "AdamW in 8 bits needs the package bitsandbytes, which this worker does not have.", field="optimizer"
            ) from None
        return AdamW8bit(parameters, lr=rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)


def moment_bytes(optimizer: str, shape: Sequence[int]) -> int:
    """Bytes of what the optimizer remembers of a float32 weight of this shape, besides its count of steps and what all
    weights share."""
    numbers = math.prod(shape)
    if optimizer == "adafactor":
        return FLOAT * (numbers if len(shape) < 2 else numbers // shape[-1] + numbers // shape[-2])
    if optimizer == "adamw8bit" and numbers >= LEAST_IN_8_BITS:
        return 2 * (numbers + FLOAT * math.ceil(numbers / BLOCK))
    return 2 * FLOAT * numbers
