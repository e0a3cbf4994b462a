"""Rules: how the judgments of an item become its verdict. A campaign names one, and so does everything that it decided.

- `majority`: an item is accepted when more than half of its judgments accept on every required question, rejected when more
  than half refuse on any. A comparison goes to the side that more than half preferred.
- `unanimous`: the same, where all have to say so.
- `dawid-skene-0.90`: the same, where Dawid and Skene's model (curation.dawid_skene) finds it at least so likely, given how
  each rater answers over the whole campaign. The raters are estimated now and then (curation.recounts), and every judgment is
  weighed by what was found of them last, as it comes (curation.estimates).

- `half`, for picks alone: each candidate is accepted that at least half of its raters picked, and the item when one of its
  candidates is.

What none of this decides is split. A comparison that goes to no side is a tie; it is contested, and waits for a curator, where
judges contradict each other: by majority where as many prefer one side as the other, otherwise where they do not all say the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import TextChoices

from curation.models import COMPARISONS, CampaignKind, Outcome, Question

Tallies = Mapping[str, Mapping[str, int]]
Posteriors = Mapping[str, Mapping[str, float]]
SIDES = (Outcome.BASELINE.value, Outcome.CANDIDATE.value)
THRESHOLDS = (0.51, 0.99)
NAME = re.compile(r"(majority|unanimous|half)|(dawid-skene)-(0\.[5-9][0-9])")


class RuleKind(TextChoices):
    MAJORITY = "majority", "More than half"
    UNANIMOUS = "unanimous", "All of them"
    HALF = "half", "At least half"
    DAWID_SKENE = "dawid-skene", "Likely enough, by Dawid and Skene's model"


class RuleRefused(ValueError):
    """A rule that cannot be followed; the message is for a person."""


class Reading(NamedTuple):
    """What a rule makes of an item: the outcome, and whether its judges contradict each other, so that a curator should decide."""

    outcome: Outcome
    contested: bool


@dataclass(frozen=True)
class Rule:
    """`threshold`, of a Dawid-Skene rule alone, is how likely an answer has to be: 0.51 to 0.99, in hundredths."""

    kind: RuleKind
    threshold: float = 0.0

    @property
    def name(self) -> str:
        """What campaigns, verdicts and manifests keep."""
        return f"{self.kind.value}-{self.threshold:.2f}" if self.is_estimated else self.kind.value

    @property
    def is_estimated(self) -> bool:
        """Whether a verdict needs the judgments of the whole campaign."""
        return self.kind == RuleKind.DAWID_SKENE

    def in_words(self, compares: bool = False) -> str:
        """The rule as a sentence, for single samples or for comparisons."""
        said = "prefer one side" if compares else "accept on every question"
        return {
            RuleKind.MAJORITY: f"More than half of the judgments {said}",
            RuleKind.UNANIMOUS: f"All judgments {said}",
            RuleKind.HALF: "At least half of the judgments pick it",
            RuleKind.DAWID_SKENE: f"It is at least {self.threshold:.0%} likely that "
            + ("one side is the better one" if compares else "every question is to be accepted")
            + ", by Dawid and Skene's model of the raters",
        }[self.kind]


MAJORITY = Rule(RuleKind.MAJORITY)
PICKED_BY_HALF = Rule(RuleKind.HALF)


def make_rule(kind: str, threshold: float | None = None) -> Rule:
    """A rule as somebody asks for it. Raises RuleRefused."""
    if kind not in RuleKind.values:
        raise RuleRefused("There is no such rule.")
    if kind != RuleKind.DAWID_SKENE:
        return Rule(RuleKind(kind))
    low, high = THRESHOLDS
    if threshold is None or not low <= round(threshold, 2) <= high:
        raise RuleRefused(f"Say how likely an answer has to be: {low} to {high}.")
    return Rule(RuleKind.DAWID_SKENE, round(threshold, 2))


def read_rule(name: str) -> Rule:
    """The rule of this name. Raises RuleRefused."""
    found = NAME.fullmatch(name)
    if found is None:
        raise RuleRefused(f"There is no rule {name!r}.")
    plain, estimated, threshold = found.groups()
    return make_rule(plain or estimated, float(threshold) if threshold else None)


def join_names(names: set[str]) -> str:
    """The rules behind a selection, as one name."""
    return "+".join(sorted(names)) or MAJORITY.name


def names_in_words(joined: str, compares: bool = False) -> str:
    """What `join_names` made, as a sentence."""
    words = [read_rule(name).in_words(compares) for name in joined.split("+")]
    return words[0] if len(words) == 1 else f"By campaign: {'; or '.join(words)}"


def read_votes(rule: Rule, kind: str, questions: Sequence[Question], tallies: Tallies) -> Reading:
    """What the rule, which is not an estimated one, makes of an item that has its judgments."""
    needed = _all_of if rule.kind == RuleKind.UNANIMOUS else _more_than_half
    if kind == CampaignKind.PICK:
        found = any(is_picked(each.get("picked", 0), sum(each.values())) for each in tallies.values())
        return Reading(Outcome.ACCEPTED if found else Outcome.REJECTED, False)
    if kind in COMPARISONS:
        first = tallies[questions[0].name]
        total, votes = sum(first.values()), [first.get(side, 0) for side in SIDES]
        for side, count in zip(SIDES, votes, strict=True):
            if needed(count, total):
                return Reading(Outcome(side), False)
        if rule.kind == RuleKind.UNANIMOUS:
            return Reading(Outcome.TIE, sum(votes) > 0)
        return Reading(Outcome.TIE, votes[0] == votes[1] > 0)
    passed = []
    for question in questions:
        if question.required:
            counts, accepts = tallies[question.name], accepting(question)
            total = sum(counts.values())
            yes = sum(count for value, count in counts.items() if value in accepts)
            if needed(total - yes, total):
                return Reading(Outcome.REJECTED, False)
            passed.append(needed(yes, total))
    return Reading(Outcome.ACCEPTED, False) if all(passed) else Reading(Outcome.SPLIT, True)


def is_certain(rule: Rule, kind: str, questions: Sequence[Question], tallies: Tallies, most: int) -> bool:
    """Whether judgments up to `most` cannot change what the rule, which is not an estimated one, makes of an item.

    Where all have to say the same, more of them never bring together what they are split about, and there is no end to
    confirming what they are not: the judgments that are there are enough. So they are of a pick, whose candidates are each
    decided by what its raters said.
    """
    if rule.kind in (RuleKind.UNANIMOUS, RuleKind.HALF):
        return True
    if kind in COMPARISONS:
        first = tallies[questions[0].name]
        left = most - sum(first.values())
        votes = [first.get(side, 0) for side in SIDES]
        return any(2 * count > most for count in votes) or all(2 * (count + left) <= most for count in votes)
    passed = []
    for question in questions:
        if question.required:
            counts, accepts = tallies[question.name], accepting(question)
            yes = sum(count for value, count in counts.items() if value in accepts)
            if 2 * (sum(counts.values()) - yes) > most:
                return True
            passed.append(2 * yes > most)
    return all(passed)


def read_posteriors(rule: Rule, kind: str, questions: Sequence[Question], posteriors: Posteriors) -> Reading:
    """What an estimated rule makes of how likely each choice is the true answer, by question."""
    if kind in COMPARISONS:
        first = posteriors[questions[0].name]
        for side in SIDES:
            if first.get(side, 0.0) >= rule.threshold:
                return Reading(Outcome(side), False)
        neither = sum(share for value, share in first.items() if value not in SIDES)
        return Reading(Outcome.TIE, neither < rule.threshold)
    passed = []
    for question in questions:
        if question.required:
            accepts = accepting(question)
            yes = sum(share for value, share in posteriors[question.name].items() if value in accepts)
            if 1 - yes >= rule.threshold:
                return Reading(Outcome.REJECTED, False)
            passed.append(yes >= rule.threshold)
    return Reading(Outcome.ACCEPTED, False) if all(passed) else Reading(Outcome.SPLIT, True)


def accepting(question: Question) -> set[str]:
    """The values that count towards a pass."""
    return {choice["value"] for choice in question.choices if choice.get("accepts")}


def is_picked(picked: int, total: int) -> bool:
    """Whether a candidate that so many of its raters picked is accepted, by the rule `half`."""
    return 2 * picked >= total > 0


def _more_than_half(count: int, total: int) -> bool:
    return 2 * count > total


def _all_of(count: int, total: int) -> bool:
    return count == total > 0
