"""The moving average of the weights: how slow it is, for the trainer and for the pages that say so.

This module imports no torch: web forms and the trainer do the same arithmetic with it.
"""

import math


def decay_at(decay: float, step: int) -> float:
    """The decay that the update with index `step` (from 0) averages with: min(decay, (1 + s) / (10 + s)), so that short
    runs are averaged too."""
    return min(decay, (1 + step) / (10 + step))


def steps_until(decay: float) -> int:
    """After how many steps an average is as slow as its decay says."""
    # The last index of s steps is s - 1, which gives s / (9 + s); the last bits of a decay are no step.
    return math.ceil(round(9 * decay / (1 - decay), 3))
