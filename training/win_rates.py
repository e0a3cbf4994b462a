"""What blind side-by-side judgments say about two versions, with intervals that respect how they were gathered.

Judgments of one prompt are no independent facts: they share its images, its difficulty and its raters' habits. Every
interval here therefore resamples prompts, never votes (a cluster bootstrap: Field & Welsh 2007, "Bootstrapping clustered
data", section 3; percentile interval).
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
SEED = 20231120
DRAWN_AT_ONCE = 1 << 18
Z_95 = 1.959963984540054
CANDIDATE, BASELINE, TIE, BOTH_BAD = "candidate", "baseline", "tie", "both_bad"
CHOICES = (CANDIDATE, BASELINE, TIE, BOTH_BAD)
SCORES = {CANDIDATE: 1.0, BASELINE: 0.0, TIE: 0.5, BOTH_BAD: 0.5}


@dataclass(frozen=True)
class Vote:
    """One standing judgment of a pair. `left` says which of the two was shown on the left: candidate or baseline."""

    prompt: Hashable
    choice: str
    left: str = ""
    bucket: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, in the unit of what was averaged; `low` and `high` are None where one cluster alone
    was seen. `n` counts observations and `clusters` what was resampled; `method` is "bootstrap", "wilson" or "none"."""

    value: float
    low: float | None
    high: float | None
    n: int
    clusters: int
    method: str

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    def differs_from(self, value: float) -> bool:
        """Whether the interval excludes the value."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def win_rate(votes: Sequence[Vote], *, resamples: int = RESAMPLES, seed: int = SEED) -> Estimate | None:
    """The candidate's win rate in [0, 1], a tie counting half, clustered by prompt; None without votes.

    "Both bad" prefers neither and counts as a tie. When every prompt agrees there is nothing to resample and the
    bootstrap would claim certainty: the interval is then Wilson's (1927), with the prompts as its n.
    """
    return _estimate([SCORES[vote.choice] for vote in votes], [vote.prompt for vote in votes], True, resamples, seed)


def left_rate(votes: Sequence[Vote], *, resamples: int = RESAMPLES, seed: int = SEED) -> Estimate | None:
    """How often the image on the left won among votes that chose a side, clustered by prompt; 0.5 is unbiased when sides
    are drawn at random. None where nobody chose a side."""
    decided = [vote for vote in votes if vote.choice in (CANDIDATE, BASELINE) and vote.left]
    scores = [1.0 if vote.choice == vote.left else 0.0 for vote in decided]
    return _estimate(scores, [vote.prompt for vote in decided], True, resamples, seed)


def paired_difference(
    differences: Sequence[float], prompts: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate | None:
    """The mean of candidate minus baseline over pairs of the same prompt and seed, clustered by prompt."""
    return _estimate(list(differences), list(prompts), False, resamples, seed)


def mean_by_prompt(
    values: Sequence[float], prompts: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Estimate | None:
    """The mean of one version's figures, clustered by prompt."""
    return _estimate(list(values), list(prompts), False, resamples, seed)


def count_choices(votes: Iterable[Vote]) -> dict[str, int]:
    """How often each choice was made; every choice is present."""
    counts = dict.fromkeys(CHOICES, 0)
    for vote in votes:
        counts[vote.choice] += 1
    return counts


def by_bucket(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    """The votes of every bucket, buckets in alphabetical order."""
    return {name: [vote for vote in votes if vote.bucket == name] for name in sorted({vote.bucket for vote in votes})}


def _estimate(
    scores: list[float], clusters: list[Hashable], is_share: bool, resamples: int, seed: int
) -> Estimate | None:
    if len(scores) != len(clusters):
        raise ValueError("every score needs its cluster")
    if resamples < 1000:
        raise ValueError("an interval from fewer than 1000 resamples is not worth showing")
    if not scores:
        return None
    value = float(np.mean(scores))
    sums, counts = _totals(scores, clusters)
    n, groups = len(scores), len(counts)
    if groups == 1:
        return Estimate(value, None, None, n, groups, "none")
    if is_share and np.ptp(sums / counts) == 0:
        return Estimate(value, *wilson_interval(value, groups), n, groups, "wilson")
    low, high = _percentiles(sums, counts, resamples, seed)
    return Estimate(value, low, high, n, groups, "bootstrap")


def _totals(scores: list[float], clusters: list[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of every cluster, both [clusters], in the order of appearance."""
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(cluster, len(places)) for cluster in clusters])
    counts = np.bincount(index)
    return np.bincount(index, weights=np.array(scores, dtype=np.float64)), counts


def _percentiles(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """The 2.5 and 97.5 percent points of the mean over resampled clusters.

    A page asks for several intervals, in a web process that is to stay small: so some resamples are drawn at a time.
    """
    groups = len(counts)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, DRAWN_AT_ONCE // groups)
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, groups, size=(min(rows, resamples - start), groups))  # [rows, clusters]
        means[start : start + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share in [0, 1] seen in n independent trials, 95%."""
    if n < 1 or not 0.0 <= share <= 1.0:
        raise ValueError("a share in [0, 1] of at least one trial")
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    # At the ends the bound is the share itself, which rounding would miss by a bit.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)
