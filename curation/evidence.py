"""Evidence that a rater is below a bar, which may be looked at after every answer.

An interval holds at one look. Who looks after each answer, and acts once it lies below the bar, sooner or later acts on anybody:
a rater who is right three times in four was found below 70% in most campaigns. What is asked here instead is a bet against
"right at least as often as the bar": its capital begins at 1 and, while that is true, does not grow on average, so that it ever
comes to 20 with a chance of at most 1 in 20 (Ville's inequality; Robbins 1970, "Statistical methods related to the law of the
iterated logarithm"; Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"). The bet is a mixture:
of likelihood ratios of shares below the bar against the bar, and of where in the answers it begins, so that a rater who gets
careless after years is found too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The chance, at most, that a rater who is right as often as the bar is ever found below it.
ALPHA = 0.05
# The shares that are bet on are the middles of so many equal parts between 0 and the bar.
PARTS = 20
# One wrong answer disproves that all are right, which leaves nothing to bet against.
HIGHEST = 1 - 1e-6
MOST = 500.0
Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


class Evidence(NamedTuple):
    """The capital of the bet, and the part of the answers that speaks most for it: the last `of`, of which `right` were right."""

    capital: float
    right: int
    of: int

    @property
    def is_enough(self) -> bool:
        return self.capital >= 1 / ALPHA


class Stretches(NamedTuple):
    """A record in stretches of `length` answers, of which the last may be shorter: how many there are in all, and how many were
    right in each stretch. Without any answer it is one stretch."""

    length: int
    answers: int
    rights: Sequence[int]


def in_stretches(record: Sequence[bool], length: int) -> Stretches:
    """A record (whether each answer was right, the newest last), so cut."""
    starts = range(0, max(len(record), 1), length)
    return Stretches(length, len(record), [sum(record[start : start + length]) for start in starts])


def evidence_below(bar: float, record: Stretches) -> Evidence:
    """What a record says against being right at least as often as `bar`, in (0, 1]. A bet begins with the first answer, and another
    after every stretch of them; the first has half of the capital, the second a sixth, the j-th 1 / (j (j + 1)), and what has not
    begun is kept."""
    starts = np.arange(len(record.rights)) * record.length
    right_since = np.cumsum(np.asarray(record.rights, np.int64)[::-1])[::-1]
    total_since = record.answers - starts
    number = np.arange(1, starts.size + 1)
    parts = capital_of(bar, right_since, total_since - right_since) / (number * (number + 1))
    best = int(parts.argmax())
    return Evidence(float(parts.sum() + 1 / (starts.size + 1)), int(right_since[best]), int(total_since[best]))


def capital_of(bar: float, right: Counts, wrong: Counts) -> Numbers:
    """[N] capitals of one bet each after so many answers: the mean over shares q below the bar of (q / bar)^right
    ((1 - q) / (1 - bar))^wrong."""
    bar = min(bar, HIGHEST)
    shares = (np.arange(PARTS) + 0.5) / PARTS * bar
    logs = np.outer(right, np.log(shares / bar)) + np.outer(wrong, np.log((1 - shares) / (1 - bar)))
    # As much as the least of these is enough for everything, and can still be added up.
    mean: Numbers = np.exp(np.minimum(logs, MOST)).mean(axis=1)
    return mean
