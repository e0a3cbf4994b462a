"""Habits of raters that deserve a look: much faster than the others, or the same answer over and over.

Both are shown to curators and change nothing else: somebody fast may be good, and a campaign's items may be alike.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median

from curation.statistics import median_of

# Fewer judgments say nothing about a rater, fewer raters nothing about what is usual.
LEAST_JUDGMENTS = 30
LEAST_RATERS = 4
# Median absolute deviations of normal values, times this, are their standard deviation.
TO_SPREAD = 1.4826
SPREADS = 3
# Runs that chance makes more often than this are no news.
LIKELY = 0.001

RULE_OF_SPEED = (
    f"Looked at are raters with {LEAST_JUDGMENTS} timed judgments or more, if there are {LEAST_RATERS} of them. Fast is whose "
    "median is less than half of the middle one of all medians, and further below it than three times their usual spread: the "
    "median absolute deviation of the medians' logarithms, times 1.4826."
)
RULE_OF_RUNS = (
    f"Looked at are raters with {LEAST_JUDGMENTS} answers or more that were given one by one, in the order in which they came. A "
    "run is named when chance would make one as long less often than once in 1,000 tries, for somebody who gives each answer as "
    "often as this rater does, or, where a rater knows only one answer, as often as the others do. Items of one sort that come "
    "after each other make runs, too."
)


def speed_flags(seconds: Mapping[int, Counter[float]]) -> dict[int, str]:
    """Rater -> sentence, for those far faster than the others; `seconds` says how often each took how long."""
    medians = {
        rater: max(middle, 0.1)
        for rater, counts in seconds.items()
        if counts.total() >= LEAST_JUDGMENTS and (middle := median_of(counts)) is not None
    }
    if len(medians) < LEAST_RATERS:
        return {}
    logs = {rater: math.log(value) for rater, value in medians.items()}
    middle = median(logs.values())
    spread = TO_SPREAD * median(abs(value - middle) for value in logs.values())
    return {
        rater: (
            f"Half of their judgments took less than {medians[rater]:.1f} s; of the {len(medians)} raters here, half have a "
            f"median below {math.exp(middle):.1f} s."
        )
        for rater, value in logs.items()
        if value < middle - max(math.log(2), SPREADS * spread)
    }


def run_flags(said: Mapping[int, Sequence[str]], labels: Mapping[str, str]) -> dict[int, str]:
    """Rater -> sentence, for those with a run of one answer that chance does not explain; `said` in the order of time."""
    everybody = Counter(value for values in said.values() for value in values)
    found = {}
    for rater, values in said.items():
        if len(values) < LEAST_JUDGMENTS:
            continue
        own = Counter(values)
        shares = own if len(own) > 1 else everybody - own
        value, length = longest_run(values)
        if not shares or least_chance_of_run(length, len(values), _shares(shares)) >= LIKELY:
            continue
        chance = chance_of_run(length, len(values), _shares(shares))
        if chance < LIKELY:
            found[rater] = (
                f"“{labels.get(value, value)}” {length} times in a row, of {len(values)} answers; chance makes a run that long "
                f"{_in_words(chance)}."
            )
    return found


def longest_run(values: Iterable[str]) -> tuple[str, int]:
    """The answer that came most often in a row, the first of several, and how often. Of nothing ("", 0)."""
    runs = [(value, sum(1 for _ in group)) for value, group in groupby(values)]
    return max(runs, key=lambda run: run[1], default=("", 0))


def chance_of_run(length: int, n: int, shares: Sequence[float]) -> float:
    """How likely n independent answers with these shares (sum 1) have a run of one answer of at least this length; exact.

    It goes through the answers and adds up how likely it is that the first such run is complete there. Times n times the number
    of shares.
    """
    if length > n:
        return 0.0
    if length <= 1:
        return 1.0
    full = [share ** (length - 1) for share in shares]
    # For each answer: how likely a run of it begins here, and how likely one is under way, with no long run before.
    begun = [list(shares)]
    under_way = list(shares)
    chance = 0.0
    for place in range(1, n):
        total = sum(under_way)
        begun.append([share * max(total - now, 0.0) for share, now in zip(shares, under_way, strict=True)])
        under_way = [share * now + new for share, now, new in zip(shares, under_way, begun[place], strict=True)]
        if place >= length - 1:
            complete = [start * of for start, of in zip(begun[place - length + 1], full, strict=True)]
            chance += sum(complete)
            under_way = [max(now - gone, 0.0) for now, gone in zip(under_way, complete, strict=True)]
    return min(chance, 1.0)


def least_chance_of_run(length: int, n: int, shares: Sequence[float]) -> float:
    """What `chance_of_run` is at least: that of a run which fills one of the n // length places beside each other. Cheap."""
    if length < 1:
        return 1.0
    return 1.0 - (1.0 - min(1.0, sum(share**length for share in shares))) ** (n // length)


def _shares(counts: Counter[str]) -> list[float]:
    return [count / counts.total() for count in counts.values()]


def _in_words(chance: float) -> str:
    if chance < 1e-9:
        return "less than once in a billion tries"
    return f"once in {float(f'{1 / chance:.2g}'):,.0f} tries"
