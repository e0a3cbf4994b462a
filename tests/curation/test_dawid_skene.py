"""Raters' tables by Dawid and Skene's model: against the paper's own example, against a plain restatement of its equations, and on
judgments of known raters."""

import math
import random

import numpy as np
import pytest

from curation import dawid_skene
from curation.dawid_skene import PRIOR_ANSWERS, estimate

# The paper's table 1: what five anaesthetists made of 45 patients, on a scale of 1 to 4. The first saw each patient three times.
ANAESTHETISTS = """
    111 1 1 1 1, 333 4 3 3 4, 112 2 1 2 2, 222 3 1 2 1, 222 3 2 2 2, 222 3 3 2 2, 122 2 1 1 1, 333 3 4 3 3, 222 2 2 2 3,
    232 2 2 2 3, 444 4 4 4 4, 222 3 3 4 3, 111 1 1 1 1, 222 3 2 1 2, 121 1 1 1 1, 111 2 1 1 1, 111 1 1 1 1, 111 1 1 1 1,
    222 2 2 2 1, 222 1 3 2 2, 222 2 2 2 2, 222 2 2 2 1, 222 3 2 2 2, 221 2 2 2 2, 111 1 1 1 1, 111 1 1 1 1, 232 2 2 2 2,
    111 1 1 1 1, 111 1 1 1 1, 112 1 1 2 1, 111 1 1 1 1, 333 3 2 3 3, 111 1 1 1 1, 222 2 2 2 2, 222 3 2 3 2, 433 4 3 4 3,
    221 2 2 3 2, 232 3 2 3 3, 333 3 4 3 2, 111 1 1 1 1, 111 1 1 1 1, 121 2 1 1 1, 232 2 2 2 2, 121 1 1 1 1, 222 2 2 2 2
"""
# Its estimates: table 2, the shares; table 3, what each says of each truth; table 4, the true answers, and of whom it is not sure.
SHARES = [0.40, 0.42, 0.11, 0.07]
TABLES = [
    [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]],
    [[0.83, 0.17, 0, 0], [0.05, 0.63, 0.31, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    [[1, 0, 0, 0], [0.11, 0.79, 0.11, 0], [0, 0.40, 0.20, 0.40], [0, 0, 0.67, 0.33]],
    [[0.94, 0.06, 0, 0], [0.05, 0.84, 0.10, 0], [0, 0, 0.80, 0.20], [0, 0, 0.33, 0.67]],
    [[1, 0, 0, 0], [0.16, 0.73, 0.11, 0], [0, 0.21, 0.79, 0], [0, 0, 0.33, 0.67]],
]
TRUTHS = [int(each) for each in "142222132243121111222222112111131224233111212"]
UNSURE = {7: [0.98, 0.02, 0, 0], 35: [0, 0.95, 0.05, 0], 38: [0, 0.02, 0.98, 0]}


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


def anaesthetists():
    rows = [
        (patient, observer, int(look) - 1)
        for patient, said in enumerate(ANAESTHETISTS.split(","))
        for observer, looks in enumerate(said.split())
        for look in looks
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def test_the_papers_own_example_has_the_estimates_that_it_prints(monkeypatch):
    """The paper takes several judgments of one observer of one patient as so many draws from one row of the observer's table, which
    EM does here too. It has no prior: ours is made as good as none."""
    monkeypatch.setattr(dawid_skene, "PRIOR_ANSWERS", 1e-6)
    found = estimate(*anaesthetists())
    assert found.shares.tolist() == pytest.approx(SHARES, abs=0.005)
    assert np.abs(found.tables - TABLES).max() < 0.005
    assert (found.posteriors.argmax(axis=1) + 1).tolist() == TRUTHS
    for patient, chances in enumerate(found.posteriors, start=1):
        certain = [float(truth == TRUTHS[patient - 1]) for truth in range(1, 5)]
        assert chances.tolist() == pytest.approx(UNSURE.get(patient, certain), abs=0.005)


def test_the_prior_moves_the_papers_example_little():
    """One patient of 45 is another: a 2 as the first observer said three times, and not a 3 as three of the others said."""
    found = estimate(*anaesthetists())
    assert found.shares.tolist() == pytest.approx(SHARES, abs=0.03)
    truths = (found.posteriors.argmax(axis=1) + 1).tolist()
    assert [patient for patient, pair in enumerate(zip(truths, TRUTHS, strict=True), 1) if len(set(pair)) > 1] == [12]


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
