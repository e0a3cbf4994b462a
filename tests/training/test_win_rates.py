"""Win rates and their intervals against figures that can be checked by hand or by simulation."""

import tracemalloc

import numpy as np
import pytest

from training.win_rates import (
    Vote,
    by_bucket,
    count_choices,
    left_rate,
    mean_by_prompt,
    paired_difference,
    wilson_interval,
    win_rate,
)


def votes(*choices: str, prompts: int | None = None) -> list[Vote]:
    return [Vote(prompt=i if prompts is None else i % prompts, choice=choice) for i, choice in enumerate(choices)]


def test_win_rate_of_nobody_is_unknown():
    assert win_rate([]) is None
    assert left_rate([]) is None
    assert paired_difference([], []) is None


def test_win_rate_counts_ties_and_both_bad_as_half():
    estimate = win_rate(votes("candidate", "candidate", "baseline", "tie", "both_bad"))
    assert estimate is not None
    assert estimate.value == pytest.approx(3 / 5)
    assert (estimate.n, estimate.clusters, estimate.method) == (5, 5, "bootstrap")


def test_win_rate_of_one_prompt_has_no_interval():
    estimate = win_rate(votes("candidate", "baseline", "candidate", prompts=1))
    assert estimate is not None
    assert estimate.value == pytest.approx(2 / 3)
    assert (estimate.low, estimate.high, estimate.method) == (None, None, "none")
    assert not estimate.differs_from(0.5)


def test_win_rate_that_is_unanimous_does_not_claim_certainty():
    estimate = win_rate(votes(*["candidate"] * 10))
    assert estimate is not None
    # Wilson's interval of 10 out of 10 begins at 10 / (10 + z²).
    assert estimate.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)
    assert (estimate.value, estimate.high, estimate.method) == (1.0, 1.0, "wilson")


def test_win_rate_of_ties_only_is_even():
    estimate = win_rate(votes(*["tie"] * 6))
    assert estimate is not None
    assert estimate.value == 0.5
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 0.5 < estimate.high
    assert not estimate.differs_from(0.5)


def test_interval_agrees_with_the_normal_one_where_prompts_are_independent():
    outcome = ["candidate"] * 240 + ["baseline"] * 160
    estimate = win_rate(votes(*outcome))
    assert estimate is not None
    half = 1.96 * (0.6 * 0.4 / 400) ** 0.5
    assert estimate.low == pytest.approx(0.6 - half, abs=0.008)
    assert estimate.high == pytest.approx(0.6 + half, abs=0.008)


def test_interval_widens_when_votes_share_prompts():
    rng = np.random.default_rng(3)
    tendency = rng.random(20)
    shared = [
        Vote(prompt=p, choice="candidate" if rng.random() < tendency[p] else "baseline")
        for p in range(20)
        for _ in range(20)
    ]
    alone = [Vote(prompt=i, choice=vote.choice) for i, vote in enumerate(shared)]
    clustered, naive = win_rate(shared), win_rate(alone)
    assert clustered is not None
    assert naive is not None
    assert clustered.value == naive.value
    assert clustered.high - clustered.low > 1.8 * (naive.high - naive.low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(200):
        tendency = rng.beta(3, 2, size=40)  # Mean 0.6.
        sample = [
            Vote(prompt=p, choice="candidate" if rng.random() < tendency[p] else "baseline")
            for p in range(40)
            for _ in range(3)
        ]
        estimate = win_rate(sample, resamples=1000, seed=trial)
        assert estimate is not None
        hits += estimate.low <= 0.6 <= estimate.high
    assert 0.89 <= hits / 200 <= 0.99


def test_win_rate_is_the_same_each_time_it_is_asked():
    sample = votes(*["candidate", "baseline", "tie"] * 11)
    assert win_rate(sample) == win_rate(sample)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="1000"):
        win_rate(votes("candidate", "baseline"), resamples=100)


def test_left_rate_sees_a_rater_who_always_presses_left():
    sample = [
        Vote(i, "candidate" if i % 2 else "baseline", left="candidate" if i % 2 else "baseline") for i in range(30)
    ]
    estimate = left_rate([*sample, Vote(99, "tie", left="candidate")])
    assert estimate is not None
    assert estimate.value == 1.0
    assert estimate.n == 30
    assert estimate.differs_from(0.5)
    rate = win_rate(sample)
    assert rate is not None
    assert rate.value == 0.5


def test_paired_difference_keeps_the_sign():
    estimate = paired_difference([1.0, 2.0, 3.0, 2.0], ["a", "a", "b", "b"])
    assert estimate is not None
    assert estimate.value == 2.0
    assert estimate.low == pytest.approx(1.5)
    assert estimate.high == pytest.approx(2.5)
    assert estimate.differs_from(0.0)


def test_mean_by_prompt_of_equal_figures_is_exact():
    estimate = mean_by_prompt([3.0, 3.0], [1, 2])
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (3.0, 3.0, 3.0)


def test_wilson_interval_matches_published_values():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    low, high = wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_choices_and_buckets_are_counted():
    sample = [Vote(1, "tie", bucket="food"), Vote(2, "candidate", bucket="animals")]
    assert count_choices(sample) == {"candidate": 1, "baseline": 0, "tie": 1, "both_bad": 0}
    assert list(by_bucket(sample)) == ["animals", "food"]


def test_interval_of_thousands_of_prompts_takes_little_memory():
    cast = [Vote(prompt=number, choice=("candidate", "baseline")[number % 2]) for number in range(5000)]
    tracemalloc.start()
    rate = win_rate(cast)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rate is not None
    assert peak < 20 * 1024**2
    assert (rate.low, rate.high) == pytest.approx(
        (0.5 - 1.96 * 0.5 / 5000**0.5, 0.5 + 1.96 * 0.5 / 5000**0.5), abs=1e-3
    )
