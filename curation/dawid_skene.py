"""What each rater makes of each kind of item, from judgments alone, without anybody knowing the truth.

The model of Dawid & Skene 1979 ("Maximum likelihood estimation of observer error-rates using the EM algorithm"): an item has
one true answer, and a rater says each answer with a probability that depends on that truth and on the rater. EM finds the
answers' shares, every rater's table of probabilities, and for each item how likely each answer is the true one.

EM goes slowly where raters agree little. Two of its steps tell where it is going, and a leap is taken there: SQUAREM, Varadhan
& Roland 2008 ("Simple and globally convergent methods for accelerating the convergence of any EM algorithm"). Items of which
the same raters said the same are one item that counts as many.
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
    `posteriors` [N, K], how likely each answer is the true one of an item; `steps` of EM that were taken."""

    shares: Numbers
    tables: Numbers
    posteriors: Numbers
    steps: int

    def accuracy(self, rater: int) -> float:
        """How often this rater says what is true, in [0, 1], over items as they come."""
        return float((self.shares * np.diagonal(self.tables[rater])).sum())


def estimate(
    items: Sequence[int] | Indices, raters: Sequence[int] | Indices, answers: Sequence[int] | Indices
) -> Estimates:
    """Estimates from judgments given as three equally long lists of indices from 0. Raises ValueError for none, or for lists
    that do not fit.

    EM begins with each item's own share of answers, which makes the truth what most say.
    """
    if not len(items) or not len(items) == len(raters) == len(answers):
        raise ValueError("Judgments are three lists of one length, which is not 0.")
    item, rater, answer = (np.asarray(each, np.int64) for each in (items, raters, answers))
    people, kinds = int(rater.max()) + 1, int(answer.max()) + 1
    first, pattern, weights = _patterns(item, rater * kinds + answer)
    kept = first[pattern[item]] == item
    said = _Said(pattern[item[kept]], rater[kept], answer[kept], weights.astype(np.float64), people, kinds)
    shares, tables, steps = _climb(said)
    return Estimates(shares, tables, said.posteriors(shares, tables)[0][pattern], steps)


def _patterns(item: Indices, cell: Indices) -> tuple[Indices, Indices, Indices]:
    """Items of the same cells, in any order, are of one pattern: ([P] an item of each, [N] each item's pattern, [P] how many)."""
    # A sum of random numbers tells sets of cells apart but for a chance of 2**-128 a pair.
    numbers = np.random.default_rng(0).integers(0, 2**64, (int(cell.max()) + 1, 2), np.uint64)
    sums = np.zeros((int(item.max()) + 1, 2), np.uint64)
    for column in range(2):
        np.add.at(sums[:, column], item, numbers[cell, column])
    _, first, pattern, count = np.unique(sums, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return first, pattern.reshape(-1), count


@dataclass(frozen=True)
class _Said:
    """Judgments as three arrays of indices, `weights` [N] of the items, and EM's two steps on them."""

    item: Indices
    rater: Indices
    answer: Indices
    weights: Numbers
    people: int
    kinds: int

    def majority(self) -> Numbers:
        """[N, K], each item's own shares of answers."""
        votes = np.zeros((self.weights.size, self.kinds))
        np.add.at(votes, (self.item, self.answer), 1.0)
        return _normalised(votes)

    def fit(self, posteriors: Numbers) -> tuple[Numbers, Numbers]:
        """The M step: shares and tables that make the judgments likeliest, given how likely each truth is."""
        kinds = self.kinds
        weighted = posteriors * self.weights[:, None]
        said = np.full((self.people, kinds, kinds), PRIOR_ANSWERS / kinds)
        cells = self.rater * kinds + self.answer
        for truth in range(kinds):
            counts = np.bincount(cells, weights=weighted[self.item, truth], minlength=self.people * kinds)
            said[:, truth] += counts.reshape(self.people, kinds)
        return _normalised(weighted.sum(axis=0)), _normalised(said)

    def posteriors(self, shares: Numbers, tables: Numbers) -> tuple[Numbers, float]:
        """The E step: [N, K], and the logarithm of how likely the judgments and the tables are together. In logarithms: an item
        with many judgments multiplies many small numbers."""
        with np.errstate(divide="ignore"):
            logs = np.tile(np.log(shares), (self.weights.size, 1))
        likely = np.log(tables)
        for truth in range(self.kinds):
            logs[:, truth] += np.bincount(
                self.item, weights=likely[self.rater, truth, self.answer], minlength=self.weights.size
            )
        most = logs.max(axis=1, keepdims=True)
        parts = np.exp(logs - most)
        total = self.weights @ (most[:, 0] + np.log(parts.sum(axis=1)))
        return _normalised(parts), float(total + likely.sum() * PRIOR_ANSWERS / self.kinds)


def _climb(said: _Said) -> tuple[Numbers, Numbers, int]:
    """(shares, tables, steps of EM) where the posteriors move no more; leaps that would lead down are not taken."""
    posteriors = said.majority()
    shares, tables = said.fit(posteriors)
    steps, moved = 1, np.inf
    while steps < STEPS and moved >= TOLERANCE:
        begin = shares, tables
        posteriors, _ = said.posteriors(*begin)
        once = said.fit(posteriors)
        before, (posteriors, _) = posteriors, said.posteriors(*once)
        moved = np.abs(posteriors - before).max()
        shares, tables = twice = said.fit(posteriors)
        steps += 2
        leapt = _leap(begin, once, twice)
        if moved >= TOLERANCE and leapt is not None and said.posteriors(*leapt)[1] > said.posteriors(*twice)[1]:
            shares, tables = leapt
    return shares, tables, steps


Parameters = tuple[Numbers, Numbers]


def _leap(begin: Parameters, once: Parameters, twice: Parameters) -> Parameters | None:
    """Where two steps point to; None where that is no further than they went, or where chances would be negative."""
    start, middle, end = (np.concatenate([part.ravel() for part in each]) for each in (begin, once, twice))
    step, bend = middle - start, end - 2 * middle + start
    size = np.linalg.norm(bend)
    length = np.linalg.norm(step) / size if size > 0 else 0.0
    # A leap as far as 1 is the second step itself.
    while length > 1.01:
        there = start + 2 * length * step + length**2 * bend
        if ((there > 0) | (end == 0)).all():
            count = begin[0].size
            return there[:count], there[count:].reshape(begin[1].shape)
        length = (length + 1) / 2
    return None


def _normalised(values: Numbers) -> Numbers:
    """Scaled to the sum 1 over the last axis; what is nothing at all becomes even."""
    total = values.sum(axis=-1, keepdims=True)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), 1.0 / values.shape[-1])
