"""The bet that a rater is below a bar: against exact sums, and on simulated raters who are looked at after every answer."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from curation.evidence import ALPHA, PARTS, capital_of, evidence_below, in_stretches
from curation.statistics import Share

BAR = 0.7


def first_found(share, *, runs, answers, seed, bar=BAR):
    """After how many answers each of so many raters is found, by the bet on all their answers alone; answers + 1: never."""
    right = (np.random.default_rng(seed).random((runs, answers)) < share).cumsum(axis=1)
    wrong = np.arange(1, answers + 1) - right
    capital = capital_of(bar, right.ravel(), wrong.ravel()).reshape(runs, answers) / 2 + 1 / 2
    found = capital >= 1 / ALPHA
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, answers + 1)


def exactly(bar, right, wrong):
    shares = [(Fraction(part) + Fraction(1, 2)) / PARTS * bar for part in range(PARTS)]
    return sum((q / bar) ** right * ((1 - q) / (1 - bar)) ** wrong for q in shares) / PARTS


@pytest.mark.parametrize(("right", "wrong"), [(0, 0), (0, 5), (5, 0), (7, 13), (40, 25), (300, 200)])
def test_capital_is_the_exact_mean_of_likelihood_ratios(right, wrong):
    expected = float(exactly(Fraction(7, 10), right, wrong))
    assert capital_of(BAR, np.array([right]), np.array([wrong]))[0] == pytest.approx(expected, rel=1e-9)


def test_capital_does_not_grow_on_average_at_the_bar_and_shrinks_above():
    right = np.arange(13)
    capital = capital_of(BAR, right, 12 - right)

    def mean(p):
        return sum(comb(12, k) * p**k * (1 - p) ** (12 - k) * capital[k] for k in range(13))

    assert mean(0.7) == pytest.approx(1, abs=1e-9)
    assert mean(0.75) < 0.9
    assert mean(0.5) > 2


def test_bets_that_begin_later_are_added_and_what_has_not_begun_is_kept():
    record = [True] * 6 + [False] * 5
    one, two = (capital_of(BAR, np.array([r]), np.array([5]))[0] for r in (6, 1))
    found = evidence_below(BAR, in_stretches(record, 5))
    assert found.capital == pytest.approx(
        one / 2 + two / 6 + capital_of(BAR, np.array([0]), np.array([1]))[0] / 12 + 1 / 4
    )
    assert two > one
    assert (found.right, found.of) == (1, 6)
    assert evidence_below(BAR, in_stretches([], 5)).capital == 1


def test_rater_above_the_bar_is_hardly_ever_found_however_often_one_looks():
    assert (first_found(0.75, runs=400, answers=1000, seed=1) <= 1000).mean() <= ALPHA
    assert (first_found(0.70, runs=400, answers=1000, seed=2) <= 1000).mean() <= ALPHA


def test_interval_at_every_look_would_find_most_raters_above_the_bar():
    """What the bet is for: the upper end of Wilson's interval of the last twenty answers falls below 70% in most runs of 1,000."""
    rng, found = np.random.default_rng(3), 0
    below = [Share(k, 20).interval[1] < 70 for k in range(21)]
    for _ in range(100):
        right = np.convolve(rng.random(1000) < 0.75, np.ones(20), "valid").astype(int)
        found += any(below[k] for k in right)
    assert found > 50


def test_rater_far_below_is_found_soon_also_after_a_good_beginning():
    assert np.median(first_found(0.5, runs=400, answers=600, seed=4)) < 60
    assert np.median(first_found(0.3, runs=400, answers=600, seed=5)) < 20
    rng, ends = np.random.default_rng(6), []
    for _ in range(9):
        record = [*(rng.random(200) < 0.9), *(rng.random(400) < 0.5)]
        ends.append(next(k for k in range(200, 601, 4) if evidence_below(BAR, in_stretches(record[:k], 20)).is_enough))
    assert np.median(ends) - 200 < 150


def test_bar_of_all_of_them_is_proved_wrong_by_one():
    assert not evidence_below(1.0, in_stretches([True] * 500, 5)).is_enough
    assert evidence_below(1.0, in_stretches([True] * 10 + [False], 20)).is_enough
    assert evidence_below(0.01, in_stretches([False] * 5, 5)).capital < 2
    assert evidence_below(0.5, in_stretches([False] * 5000, 100)).is_enough
