"""What each rater makes of each kind of item, from judgments alone, without anybody knowing the truth.

The model of Dawid & Skene 1979 ("Maximum likelihood estimation of observer error-rates using the EM algorithm"): an item has
one true answer, and a rater says each answer with a probability that depends on that truth and on the rater. EM finds the
answers' shares, every rater's table of probabilities, and for each item how likely each answer is the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS, TOLERANCE = 200, 1e-6
# Every cell of a rater's table begins with so many answers, spread over the row: a few judgments prove no certainty.
PRIOR_ANSWERS = 0.5
Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Estimates:
    """`shares` [K] of the true answers; `tables` [R, K, K], what a rater says (last axis) of each truth (each row sums to 1);
    `posteriors` [N, K], how likely each answer is the true one of an item; `steps` that EM took."""

    shares: Numbers
    tables: Numbers
    posteriors: Numbers
    steps: int

    def accuracy(self, rater: int) -> float:
        """How often this rater says what is true, in [0, 1], over items as they come."""
        return float((self.shares * np.diagonal(self.tables[rater])).sum())


def estimate(items: Sequence[int], raters: Sequence[int], answers: Sequence[int]) -> Estimates:
    """Estimates from judgments given as three equally long lists of indices from 0. Raises ValueError for none, or for lists
    that do not fit.

    EM begins with each item's own share of answers, which makes the truth what most say.
    """
    if not len(items) or not len(items) == len(raters) == len(answers):
        raise ValueError("Judgments are three lists of one length, which is not 0.")
    item, rater, answer = (np.asarray(each, np.int64) for each in (items, raters, answers))
    count, people, kinds = (int(each.max()) + 1 for each in (item, rater, answer))
    posteriors = np.zeros((count, kinds))
    np.add.at(posteriors, (item, answer), 1.0)
    posteriors = _normalised(posteriors)
    steps, moved = 0, np.inf
    while steps < STEPS and moved >= TOLERANCE:
        shares, tables = _fit(posteriors, item, rater, answer, people)
        before, posteriors = posteriors, _posteriors(shares, tables, item, rater, answer, count)
        steps, moved = steps + 1, np.abs(posteriors - before).max()
    return Estimates(shares, tables, posteriors, steps)


def _fit(posteriors: Numbers, item: Indices, rater: Indices, answer: Indices, people: int) -> tuple[Numbers, Numbers]:
    """The M step: shares and tables that make the judgments likeliest, given how likely each truth is."""
    kinds = posteriors.shape[1]
    said = np.full((people, kinds, kinds), PRIOR_ANSWERS / kinds)
    cells = rater * kinds + answer
    for truth in range(kinds):
        counts = np.bincount(cells, weights=posteriors[item, truth], minlength=people * kinds)
        said[:, truth] += counts.reshape(people, kinds)
    return _normalised(posteriors.sum(axis=0)), _normalised(said)


def _posteriors(
    shares: Numbers, tables: Numbers, item: Indices, rater: Indices, answer: Indices, count: int
) -> Numbers:
    """The E step, in logarithms: an item with many judgments multiplies many small numbers."""
    with np.errstate(divide="ignore"):
        logs = np.tile(np.log(shares), (count, 1))
    likely = np.log(tables)
    for truth in range(shares.size):
        logs[:, truth] += np.bincount(item, weights=likely[rater, truth, answer], minlength=count)
    return _normalised(np.exp(logs - logs.max(axis=1, keepdims=True)))


def _normalised(values: Numbers) -> Numbers:
    """Scaled to the sum 1 over the last axis; what is nothing at all becomes even."""
    total = values.sum(axis=-1, keepdims=True)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), 1.0 / values.shape[-1])
