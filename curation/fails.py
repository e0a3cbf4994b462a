"""Why items failed: reasons and marked words of the standing judgments of a campaign, from what is counted beside them."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from curation import tallies
from curation.models import Campaign, Question, TallyKind
from curation.statistics import Share

MOST_WORDS = 20
FEWEST_MARKS = 2


@dataclass(frozen=True)
class ReasonTable:
    """How often each reason was given for the fails of one question; the first column counts all buckets."""

    question: Question
    buckets: list[str]
    fails: list[int]
    rows: list[tuple[str, list[Share]]]


def reason_tables(campaign: Campaign, questions: Iterable[Question]) -> list[ReasonTable]:
    """A table for each question of which a fail was given a reason. A fail may have several reasons, or none."""
    asked = {question.name: question for question in questions if question.choices}
    fails: defaultdict[str, Counter[str]] = defaultdict(Counter)
    given: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    kinds = (TallyKind.PATTERN, TallyKind.REASON)
    for name, (n, _) in tallies.read([campaign.pk], *kinds).items() if asked else ():
        if name.what == TallyKind.REASON:
            given[name.question, name.key][name.bucket] += n
        elif question := asked.get(name.question):
            failed = sum(count for value, count in json.loads(name.key).items() if question.is_fail(value))
            fails[name.question][name.bucket] += n * failed
    explained = {name for (name, _), counts in given.items() if counts.total()}
    return [_table(asked[name], fails[name], given) for name in asked if name in explained]


def _table(question: Question, fails: Counter[str], given: dict[tuple[str, str], Counter[str]]) -> ReasonTable:
    buckets = sorted(bucket for bucket, count in fails.items() if count)
    rows = []
    # What was given once is told, also where it is offered no more.
    once = sorted({reason for name, reason in given if name == question.name} - set(question.reasons))
    for reason in [*question.reasons, *once]:
        counts = given.get((question.name, reason), Counter())
        shares = [Share(counts[bucket], fails[bucket]) for bucket in buckets]
        rows.append((reason, [Share(counts.total(), fails.total()), *shares]))
    rows.sort(key=lambda row: -row[1][0].k)
    names = [bucket or "no bucket" for bucket in buckets]
    return ReasonTable(question, names, [fails.total(), *(fails[bucket] for bucket in buckets)], rows)


def marked_words(campaign: Campaign) -> list[tuple[str, int]]:
    """(word, how often it was marked as wrong or missing), the most marked first; words marked once are left out."""
    marked = [(name.key, n) for name, (n, _) in tallies.read([campaign.pk], TallyKind.WORD).items()]
    found = [(word, n) for word, n in marked if word and n >= FEWEST_MARKS]
    return sorted(found, key=lambda row: (-row[1], row[0]))[:MOST_WORDS]
