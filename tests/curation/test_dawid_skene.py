"""Raters' tables by Dawid and Skene's model: against a plain restatement of its equations, and on judgments of known raters."""

import math
import random

import numpy as np
import pytest

from curation.dawid_skene import PRIOR_ANSWERS, estimate


def plain_em(items, raters, answers, steps):
    """Equations 2.3 to 2.5 of the paper with the same prior and beginning, one number at a time."""
    kinds, people, count = max(answers) + 1, max(raters) + 1, max(items) + 1
    rows = list(zip(items, raters, answers, strict=True))
    truth = [[sum(a == k for i, _, a in rows if i == n) for k in range(kinds)] for n in range(count)]
    truth = [[value / sum(row) for value in row] for row in truth]
    for _ in range(steps):
        shares = [sum(truth[n][k] for n in range(count)) / count for k in range(kinds)]
        table = {}
        for r in range(people):
            for k in range(kinds):
                cells = [
                    PRIOR_ANSWERS / kinds + sum(truth[i][k] for i, who, a in rows if who == r and a == said)
                    for said in range(kinds)
                ]
                table[r, k] = [cell / sum(cells) for cell in cells]
        for n in range(count):
            weights = [shares[k] * math.prod(table[who, k][a] for i, who, a in rows if i == n) for k in range(kinds)]
            truth[n] = [weight / sum(weights) for weight in weights]
    return shares, table, truth


def simulate(tables, count, *, overlap, seed, shares=(0.6, 0.4)):
    rng = random.Random(seed)
    truth = [rng.choices(range(len(shares)), shares)[0] for _ in range(count)]
    rows = [
        (i, r, rng.choices(range(len(shares)), tables[r][truth[i]])[0])
        for i in range(count)
        for r in rng.sample(range(len(tables)), overlap)
    ]
    return truth, [list(column) for column in zip(*rows, strict=True)]


GOOD, SLOPPY, INVERTED = [[0.95, 0.05], [0.1, 0.9]], [[0.7, 0.3], [0.3, 0.7]], [[0.2, 0.8], [0.9, 0.1]]


def test_estimates_are_those_of_the_plain_equations():
    _, rows = simulate([GOOD, SLOPPY, GOOD], 12, overlap=3, seed=4)
    found = estimate(*rows)
    shares, table, truth = plain_em(*rows, steps=1000)
    assert found.shares.tolist() == pytest.approx(shares, abs=1e-5)
    assert np.allclose(found.posteriors, truth, atol=1e-5)
    for r in range(3):
        for k in range(2):
            assert found.tables[r, k].tolist() == pytest.approx(table[r, k], abs=1e-5)


def test_many_items_of_raters_who_agree_little_take_few_steps_to_where_plain_ones_end():
    _, rows = simulate([SLOPPY, GOOD, SLOPPY, SLOPPY], 60, overlap=2, seed=9)
    found = estimate(*rows)
    shares, _, truth = plain_em(*rows, steps=3000)
    assert found.steps < 100
    assert found.shares.tolist() == pytest.approx(shares, abs=1e-3)
    assert np.allclose(found.posteriors, truth, atol=1e-3)


def test_items_of_the_same_judgments_in_another_order_are_alike():
    found = estimate([0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 1])
    assert found.posteriors[0].tolist() == found.posteriors[1].tolist()
    assert found.posteriors[0].tolist() != found.posteriors[2].tolist()


def test_known_raters_are_found_again_even_one_who_says_the_opposite():
    truth, rows = simulate([GOOD, GOOD, GOOD, SLOPPY, INVERTED], 2000, overlap=4, seed=1)
    found = estimate(*rows)
    for r, table in enumerate([GOOD, GOOD, GOOD, SLOPPY, INVERTED]):
        assert np.abs(found.tables[r] - table).max() < 0.06
    assert [round(found.accuracy(r), 1) for r in (0, 3, 4)] == [0.9, 0.7, 0.2]
    majority = [round(np.mean([a for i, _, a in zip(*rows, strict=True) if i == n])) for n in range(300)]
    right = np.mean(found.posteriors[:300].argmax(axis=1) == truth[:300])
    assert right > np.mean(np.array(majority) == truth[:300])
    assert right > 0.93


def test_many_judgments_of_one_item_do_not_vanish():
    found = estimate([0] * 3000 + [1], [i % 5 for i in range(3000)] + [0], [1] * 3000 + [0])
    assert np.isfinite(found.posteriors).all()
    assert found.posteriors[0, 1] == pytest.approx(1.0)


def test_rows_sum_to_one_and_few_judgments_prove_no_certainty():
    found = estimate([0, 0, 1], [0, 1, 0], [0, 0, 1])
    assert np.allclose(found.tables.sum(axis=2), 1)
    assert np.allclose(found.posteriors.sum(axis=1), 1)
    assert found.tables.max() < 0.95


@pytest.mark.parametrize("lists", [([], [], []), ([0], [0], []), ([0, 1], [0], [1])])
def test_nothing_and_lists_that_do_not_fit_are_refused(lists):
    with pytest.raises(ValueError, match="three lists"):
        estimate(*lists)
