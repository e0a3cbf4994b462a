"""Agreement beyond chance: Krippendorff's alpha for choices without an order, by question and bucket, with an interval.

Alpha is 1 - (disagreement seen) / (disagreement expected by chance): 1 where all agree, 0 where they agree as dice would,
below 0 where less. It takes any number of raters and missing judgments (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability").
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from curation import tallies
from curation.models import Campaign, Question, TallyKind
from curation.picks import question_of

RESAMPLES = 1000
# Where more of the resamples than this define no alpha, either end of a 95% interval could be one of them.
MOST_UNDEFINED = 0.025
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Alpha with a 95% percentile interval over resampled items; None where it is not defined, or nothing to be told.

    `items` have two judgments or more and count, with `judgments` in all.
    """

    alpha: float | None
    low: float | None
    high: float | None
    items: int
    judgments: int

    @property
    def in_words(self) -> str:
        """How far it carries, in Krippendorff's own terms, by the lower end of the interval; empty where there is none."""
        if self.low is None:
            return ""
        if self.low >= 0.8:
            return "reliable"
        return "tentative" if self.low >= 0.667 else "weak"


@dataclass(frozen=True)
class Pattern:
    """So many items whose judgments are distributed like this: value -> count."""

    counts: dict[str, int]
    items: int


def agreement_by_bucket(campaign: Campaign, questions: Sequence[Question]) -> list[tuple[str, list[Agreement]]]:
    """(bucket, one Agreement a question), the buckets in order of their names and then all of them together as "all"."""
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    # However many items there are, their patterns are few. They come sorted, so that the interval is always the same.
    for of, (items, _) in sorted(tallies.read([campaign.pk], TallyKind.PATTERN).items()):
        for name in (of.bucket, "\0all"):
            found.setdefault((question_of(of.question), name), []).append((of.key, items))
    buckets = sorted({name for _, name in found if name != "\0all"})
    rows = [(name or "no bucket", name) for name in buckets] + [("all", "\0all")]
    return [(label, [_measured(tuple(found.get((q.name, name), []))) for q in questions]) for label, name in rows]


# Most looks at a page find most buckets as they were at the look before.
@lru_cache(maxsize=1024)
def _measured(patterns: tuple[tuple[str, int], ...]) -> Agreement:
    """As `measure`, of patterns as they are counted: (what was answered how often, as JSON, items)."""
    return measure(Pattern(json.loads(counts), items) for counts, items in patterns)


def measure(patterns: Iterable[Pattern], resamples: int = RESAMPLES) -> Agreement:
    """The agreement of these items; those with fewer than two judgments say nothing and do not count."""
    pairable = [pattern for pattern in patterns if sum(pattern.counts.values()) > 1]
    if not pairable:
        return Agreement(None, None, None, 0, 0)
    values = sorted({value for pattern in pairable for value in pattern.counts})
    counts = np.array([[pattern.counts.get(value, 0) for value in values] for pattern in pairable], float)
    items = np.array([pattern.items for pattern in pairable])
    alpha = _alphas(counts, items[None].astype(float))[0]
    total, judgments = int(items.sum()), int((counts.sum(axis=1) * items).sum())
    if np.isnan(alpha):
        return Agreement(None, None, None, total, judgments)
    # The same figures whenever the page is looked at.
    drawn = np.random.default_rng(0).multinomial(total, items / total, size=resamples).astype(float)
    spread = _alphas(counts, drawn)
    # A sample in which only one value occurs defines no alpha. Where that is common, all but one value hang on so few items that
    # these might as well be missing, or be others: what the rest of the samples say is no interval.
    if np.isnan(spread).mean() > MOST_UNDEFINED:
        return Agreement(float(alpha), None, None, total, judgments)
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return Agreement(float(alpha), float(low), float(high), total, judgments)


def _alphas(counts: Numbers, weights: Numbers) -> Numbers:
    """[R] alphas for patterns [K, V] of judgments, each standing for weights[r, k] items; NaN where chance allows none."""
    sizes = counts.sum(axis=1)
    disagreeing = (sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)
    judged = weights @ sizes
    by_value = weights @ counts
    seen = (weights @ disagreeing) / judged
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (judged**2 - (by_value**2).sum(axis=1)) / (judged * (judged - 1))
        return np.where(expected > 0, 1 - seen / expected, np.nan)
