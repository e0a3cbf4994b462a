"""Pass rates: how many of a campaign's judgments accept, by question and bucket, with an interval over items."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from curation import tallies
from curation.models import Campaign, Question, TallyKind
from curation.picks import PICKED, question_of
from curation.rules import accepting
from curation.statistics import Share

# So many items whose judgments are all alike are thought beside those that are there: a few items say little of how alike the
# judgments of one are.
ALIKE = 4


@dataclass
class Clusters:
    """Items, each with its judgments, of which some accept; summed up, so that it does not matter how many there are."""

    items: int = 0
    judged: int = 0
    accepted: int = 0
    judged_squares: int = 0
    accepted_squares: int = 0
    products: int = 0

    def add(self, items: int, accepted: int, judged: int) -> None:
        """So many items, each with `judged` judgments of which `accepted` accept."""
        self.items += items
        self.judged += items * judged
        self.accepted += items * accepted
        self.judged_squares += items * judged**2
        self.accepted_squares += items * accepted**2
        self.products += items * accepted * judged

    @property
    def share(self) -> Share:
        """Of all judgments those that accept.

        Judgments of one item are about the same picture: where they say the same, they are worth no more than one. What they
        are worth together is the variance of one judgment over that of the share, as its linearisation estimates it from
        how items differ (Kish 1965, "Survey Sampling"; Korn and Graubard 1998, "Confidence Intervals for Proportions"): as
        many as there are items where each is of one mind, as many as there are judgments where items do not differ.
        """
        if not self.judged:
            return Share(0, 0)
        share = self.accepted / self.judged
        of_one = share * (1 - share)
        # Nothing shows how far they hang together where all say the same: they are taken to do so entirely.
        worth = self.judged**2 / self.judged_squares
        if of_one:
            apart = self.accepted_squares - 2 * share * self.products + share**2 * self.judged_squares
            alike = self.judged_squares / self.items * of_one
            worth = of_one * self.judged**2 * (1 + ALIKE / self.items) / (apart + ALIKE * alike)
        return Share(self.accepted, self.judged, min(worth, self.judged))


def pass_rates(campaign: Campaign, questions: Iterable[Question]) -> tuple[list[Question], list[dict[str, Any]]]:
    """The questions that can be passed, and for each bucket a row {"bucket", "shares": a Share for each question}; then all."""
    asked = [question for question in questions if accepting(question)]
    found: defaultdict[str, list[Clusters]] = defaultdict(lambda: [Clusters() for _ in asked])
    places = {
        question.name: (place, {PICKED} if question.multiple else accepting(question))
        for place, question in enumerate(asked)
    }
    # However many items there are, their patterns are few.
    for of, (items, _) in tallies.read([campaign.pk], TallyKind.PATTERN).items():
        if question_of(of.question) not in places:
            continue
        place, accepts = places[question_of(of.question)]
        counts = json.loads(of.key)
        accepted = sum(count for value, count in counts.items() if value in accepts)
        for name in (of.bucket, "\0all"):
            found[name][place].add(items, accepted, sum(counts.values()))
    everything = found.pop("\0all", [Clusters() for _ in asked])
    rows = [(bucket or "no bucket", found[bucket]) for bucket in sorted(found)]
    return asked, [
        {"bucket": bucket, "shares": [each.share for each in clusters]}
        for bucket, clusters in [*rows, ("all", everything)]
    ]
