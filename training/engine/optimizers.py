"""The optimizers that a run may choose, and what each remembers of a weight. Imports no torch until one is made.

AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) keeps two moments of every weight. Adafactor (Shazeer & Stern 2018, arXiv
1804.04235, with its update clipping and relative step sizes, and no first moment) keeps of each matrix the second
moments of its rows and columns alone; of a convolution, those of each kernel's rows and columns. Its learning rate counts in
shares of a weight's own size.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from training.engine.recipe import RunSettings


def make_optimizer(parameters: Iterable[Any], settings: RunSettings) -> Any:
    """The optimizer of the settings for torch's parameters. All of its state are tensors, which a checkpoint keeps."""
    import torch

    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=rate, weight_decay=decay, foreach=False)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)


def count_moments(optimizer: str, shape: Sequence[int]) -> int:
    """How many numbers the optimizer remembers of a weight of this shape, besides its count of steps."""
    numbers = math.prod(shape)
    if optimizer == "adamw":
        return 2 * numbers
    if len(shape) < 2:
        return numbers
    return numbers // shape[-1] + numbers // shape[-2]
