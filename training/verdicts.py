"""An evaluation's outcome: figures with their intervals, and the one sentence that they come to."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from training import comparisons, win_rates
from training.models import Evaluation, Shown
from training.win_rates import Estimate, Vote


@dataclass(frozen=True)
class Words:
    """How an outcome is said of two images, or of two sets."""

    noun: str
    beats: str
    wins: str
    alike: str


OF_PAIRS = Words("image", "beats", "is preferred", "cannot be told apart")
OF_SETS = Words("set", "is more varied than", "has the more varied set", "cannot be told apart by their variety")


@dataclass(frozen=True)
class Bucket:
    """The votes on one class of prompts, or to one question."""

    name: str
    counts: dict[str, int]
    rate: Estimate | None


@dataclass
class EvaluationVerdict:
    """What the votes and the automatic metrics of an evaluation say at the moment."""

    evaluation: Evaluation

    @cached_property
    def votes(self) -> list[Vote]:
        campaign = self.evaluation.campaign
        return comparisons.standing_votes(campaign) if campaign else []

    @cached_property
    def rate(self) -> Estimate | None:
        """The candidate's win rate in [0, 1], ties counted as half."""
        return win_rates.win_rate(self.votes)

    @cached_property
    def counts(self) -> dict[str, int]:
        return win_rates.count_choices(self.votes)

    @cached_property
    def buckets(self) -> list[Bucket]:
        return [
            Bucket(name or "no bucket", win_rates.count_choices(votes), win_rates.win_rate(votes))
            for name, votes in win_rates.by_bucket(self.votes).items()
        ]

    @cached_property
    def further(self) -> list[Bucket]:
        """What was said to each further question, named by its text."""
        evaluation, campaign = self.evaluation, self.evaluation.campaign
        if campaign is None or not evaluation.further:
            return []
        said = [
            (text, comparisons.standing_votes(campaign, comparisons.further_name(place)))
            for place, text in enumerate(evaluation.further)
        ]
        return [Bucket(text, win_rates.count_choices(votes), win_rates.win_rate(votes)) for text, votes in said]

    @cached_property
    def left(self) -> Estimate | None:
        """How often the left side won among votes for a side, in [0, 1]."""
        return win_rates.left_rate(self.votes)

    @cached_property
    def clip(self) -> "ClipFigures | None":
        return clip_figures(self.evaluation)

    @cached_property
    def sentence(self) -> str:
        """The verdict for a person: who is better, by how much, how sure, from how much."""
        evaluation, rate = self.evaluation, self.rate
        candidate, baseline = f"v{evaluation.candidate.number}", f"v{evaluation.baseline.number}"
        if rate is None:
            return f"Nobody has judged {candidate} against {baseline} yet."
        words, cluster = self._words, self._cluster
        basis = f"{_counted(rate.n, 'judgment')} of {_counted(rate.clusters, cluster)}, ties counted as half"
        share = f"{100 * rate.value:.0f}%"
        if rate.low is None or rate.high is None:
            return f"{candidate} {words.wins} in {share} of {basis}; one {cluster} allows no interval."
        share += f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
        if not rate.differs_from(0.5):
            return f"{candidate} and {baseline} {words.alike}: {candidate} {words.wins} in {share} of {basis}."
        if rate.value > 0.5:
            return f"{candidate} {words.beats} {baseline}: it {words.wins} in {share} of {basis}."
        return f"{baseline} {words.beats} {candidate}: {candidate} {words.wins} in only {share} of {basis}."

    @property
    def _words(self) -> "Words":
        return OF_SETS if self.evaluation.compares_sets else OF_PAIRS

    @property
    def _cluster(self) -> str:
        """What votes are gathered by: those of one are no independent facts."""
        return "group of prompts" if self.evaluation.shown == Shown.MANY_PROMPTS else "prompt"

    @cached_property
    def left_sentence(self) -> str:
        if self.left is None:
            return "No vote for a side yet."
        left, share = f"The left {self._words.noun}", f"{100 * self.left.value:.0f}%"
        if self.left.low is None or self.left.high is None:
            return f"{left} won {share} of the votes for a side; one {self._cluster} allows no interval."
        share += f" [{100 * self.left.low:.0f}, {100 * self.left.high:.0f}]"
        if self.left.differs_from(0.5):
            return f"{left} won {share} of the votes for a side: raters favour a side, so look at them."
        return f"{left} won {share} of the votes for a side, which chance alone can give."

    def as_json(self) -> dict[str, Any]:
        """The figures for programs; rates in [0, 1]."""
        return {
            "evaluation": self.evaluation.pk,
            "baseline": self.evaluation.baseline.number,
            "candidate": self.evaluation.candidate.number,
            "sentence": self.sentence,
            "win_rate": _estimate_json(self.rate),
            "left_rate": _estimate_json(self.left),
            "counts": self.counts,
            "further": [
                {"question": each.name, "win_rate": _estimate_json(each.rate), "counts": each.counts}
                for each in self.further
            ],
            "shown": self.evaluation.shown,
            "set_size": self.evaluation.set_size or None,
            "clip": self.clip.as_json() if self.clip else None,
        }


@dataclass(frozen=True)
class ClipFigures:
    """CLIP scores of both versions, 100 x cosine, and their paired difference, all clustered by prompt."""

    model: str
    baseline: Estimate
    candidate: Estimate
    difference: Estimate

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "baseline": _estimate_json(self.baseline),
            "candidate": _estimate_json(self.candidate),
            "difference": _estimate_json(self.difference),
        }


def clip_figures(evaluation: Evaluation) -> ClipFigures | None:
    """The stored scores as estimates; None where nothing was measured."""
    clip = evaluation.metrics.get("clip")
    pairs = (clip or {}).get("pairs") or []
    if not pairs:
        return None
    prompts = [pair["prompt"] for pair in pairs]
    baseline = win_rates.mean_by_prompt([pair["baseline"] for pair in pairs], prompts)
    candidate = win_rates.mean_by_prompt([pair["candidate"] for pair in pairs], prompts)
    difference = win_rates.paired_difference([pair["candidate"] - pair["baseline"] for pair in pairs], prompts)
    assert baseline is not None
    assert candidate is not None
    assert difference is not None
    return ClipFigures(clip["model"], baseline, candidate, difference)


def _counted(number: int, noun: str) -> str:
    first, of, rest = noun.partition(" of ")
    return f"{number} {first}{'' if number == 1 else 's'}{of}{rest}"


def _estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "clusters": estimate.clusters,
        "method": estimate.method,
    }
